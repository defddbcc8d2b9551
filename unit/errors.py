"""What a user can do wrong, one class a kind. Only the command line prints these, and exits with their status."""

import os


class UserError(Exception):
    """Something the user can act on. The message is one line: the file or key, what is wrong, what to do."""

    exit_status = 1


class ConfigError(UserError):
    """A command line or configuration that can't be used."""

    exit_status = 2


class ModelError(UserError):
    """A file given as a model that is none, or one that this version can't use."""

    exit_status = 2


class DataError(UserError):
    """A folder that can't serve as a domain."""

    exit_status = 3


class ImageError(DataError):
    """One image file that can't be read."""


def escape(path: str | os.PathLike[str]) -> str:
    r"""The path as text for one line of a message: line breaks, control and undecodable characters as ``\n``."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in os.fspath(path))
