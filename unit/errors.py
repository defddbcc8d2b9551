"""User errors, one class per kind, which only the command line prints; and text that is safe to print."""

import logging
import os


class UserError(Exception):
    """Something the user can act on. The message is one line: the file or key, what is wrong, what to do."""

    exit_status = 1


class ConfigError(UserError):
    """A command line or configuration that can't be used."""

    exit_status = 2


class ModelError(UserError):
    """A model file that is invalid or unsupported."""

    exit_status = 2


class DataError(UserError):
    """Unusable image data."""

    exit_status = 3


class ImageError(DataError):
    """One image file that can't be read."""


class OutOfMemoryError(UserError):
    """Too little memory for this one image; others may be smaller."""


def escape(path: str | os.PathLike[str]) -> str:
    r"""Return the path as text for one line of a message: line breaks, control and undecodable characters escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in os.fspath(path))


class LineFormatter(logging.Formatter):
    """Formats a log message as one printable line, whatever names it holds."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the escaped message; a traceback follows it as it is."""
        return escape(super().formatMessage(record))


def format_bytes(number: float) -> str:
    """Return a size for a message, e.g. "3 bytes", "69 GB"."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if number >= size:
            return f"{number / size:.{1 if number < 10 * size else 0}f} {unit}"
    return f"{number:.0f} bytes"
