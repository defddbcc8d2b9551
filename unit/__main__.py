"""``python -m unit VERB``: the one place where errors are printed and exit statuses made."""

from __future__ import annotations

import importlib
import io
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from unit.errors import UserError

VERBS = {
    "check": "look through two folders of images for what would go wrong",
    "train": "train on two folders of images",
    "translate": "translate images with a trained model",
    "evaluate": "measure a trained model on aligned test images",
    "report": "write a run as one HTML file",
    "streets": "write the embedded streets as folders",
    "earth": "write satellite photographs and a relief map as folders",
    "shards": "copy a folder of images into WebDataset shards",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb with its arguments (default: the command line's); returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0 if arguments else 2
    verb, *rest = arguments
    if verb not in VERBS:
        print(f"unit: no such verb: {verb!r}; one of {', '.join(VERBS)}", file=sys.stderr)
        return 2
    _prepare_streams()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        status: int = importlib.import_module(f"unit.cli.{verb}").run(rest)
        return status
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read our standard output has gone, e.g. `| head`
        sys.stderr.close()
        return 141
    except OSError as error:  # too many open files, a full disk behind standard output, a terminal that has gone
        print(f"error: {error}", file=sys.stderr)
        return 1


def _prepare_streams() -> None:
    """Whatever runs us may have closed them, or speak ASCII alone."""
    sys.stdout, sys.stderr = (s or Path(os.devnull).open("w") for s in (sys.stdout, sys.stderr))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _usage() -> str:
    verbs = "\n".join(f"  {verb:<10} {meaning}" for verb, meaning in VERBS.items())
    return f"usage: python -m unit VERB [ARGUMENTS]\n\n{verbs}\n\npython -m unit VERB --help says more."


if __name__ == "__main__":
    sys.exit(main())
