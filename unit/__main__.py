"""``python -m unit VERB``: the only place that prints errors and sets exit statuses."""

from __future__ import annotations

import importlib
import io
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from unit.cli import VERBS
from unit.errors import LineFormatter, UserError, escape


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb with its arguments (default: the command line's); return the exit status."""
    _read_names_as_utf8()
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Replace closed streams, in the order of their numbers, as a file gets the lowest free one; and escape characters
    # that the terminal's encoding lacks.
    sys.stdin = sys.stdin or Path(os.devnull).open()  # noqa: SIM115
    sys.stdout, sys.stderr = (s or Path(os.devnull).open("w") for s in (sys.stdout, sys.stderr))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(LineFormatter())
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()  # here, where errors are handled, and not at the interpreter's exit
    except UserError as error:
        print(f"error: {escape(str(error))}", file=sys.stderr)  # whatever names it holds
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of standard output has gone, e.g. `| head`
        _discard_output()
        return 141
    except MemoryError:
        print("error: out of memory; end other programs, or lower sizes and batches", file=sys.stderr)
        return 1
    except OSError as error:  # too many open files, standard output on a full disk, a closed terminal
        _discard_output()
        print(f"error: {escape(_explain(error))}", file=sys.stderr)
        return 1


def _read_names_as_utf8() -> None:
    """Start again in Python's UTF-8 mode where the locale has another encoding, as cron's and ssh's may.

    Which images are held out, their order and a run's default directory depend on names, not on that.
    """
    if sys.getfilesystemencoding() != "utf-8" and sys.executable:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def _run(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        verbs = "".join(f"  {verb:<11} {meaning}\n" for verb, meaning in VERBS.items())
        print(f"usage: python -m unit VERB [ARGUMENTS]\n\n{verbs}\npython -m unit VERB --help shows its arguments.")
        return 0 if arguments else 2
    verb, *rest = arguments
    if verb not in VERBS:
        print(f"unit: no such verb: {verb!r}; one of {', '.join(VERBS)}", file=sys.stderr)
        return 2
    status: int = importlib.import_module(f"unit.cli.{verb}").run(rest)
    return status


def _explain(error: OSError) -> str:
    try:
        Path.cwd()
    except OSError:
        return "the current directory was deleted or can't be read; cd to another one"
    where = f"{os.fspath(error.filename)}: " if isinstance(error.filename, str | os.PathLike) else ""
    return f"{where}{error.strerror or error}"


def _discard_output() -> None:
    """Let the interpreter flush into nothing what is still buffered."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
