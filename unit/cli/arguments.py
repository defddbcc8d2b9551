"""Argument types and options that several verbs share."""

from __future__ import annotations

import argparse
import math
import os
import re
import reprlib
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from unit.config import DEVICE_NAMES
from unit.errors import ConfigError, escape

_FILE_SUFFIXES = {".html", ".json", ".onnx", ".pt", ".pth", ".safetensors", ".tar", ".txt", ".yaml", ".yml", ".zip"}
"""Besides those of images and videos."""


def command(verb: str) -> str:
    """Return how to call a verb, as this program was called: by a script, as installed, or as a module."""
    name, scripts = Path(sys.argv[0]).name, ("train.py", "translate.py")
    if name in scripts and f"{verb}.py" in scripts:
        return f"python {verb}.py"
    return f"unit {verb}" if name in ("unit", "unit.exe") else f"python -m unit {verb}"


class Parser(argparse.ArgumentParser):
    """An argument parser that raises ConfigError: one line, like every other error.

    Args:
        verb: whose arguments it parses.
        options: as of `argparse.ArgumentParser`.
    """

    def __init__(self, verb: str, **options: Any) -> None:
        super().__init__(prog=command(verb), **options)

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError."""
        raise ConfigError(f"{escape(message)}; see {self.prog} --help")


def integer(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    """Return an argparse type: an integer from `minimum` to `maximum`."""
    limits = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"

    def parse(text: str) -> int:
        number = int(text) if text.isdecimal() and len(text) <= 18 else -1
        if number < minimum or (maximum is not None and number > maximum):
            raise argparse.ArgumentTypeError(f"must be an integer {limits}, is {reprlib.repr(text)}")
        return number

    return parse


def fraction(text: str) -> float:
    """An argparse type: a number from 0 to 1."""
    with suppress(ValueError):
        if 0 <= (number := float(text)) <= 1:
            return number
    raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, is {reprlib.repr(text)}")


def positive(text: str) -> float:
    """An argparse type: a finite number above 0."""
    with suppress(ValueError):
        if 0 < (number := float(text)) < math.inf:
            return number
    raise argparse.ArgumentTypeError(f"must be a number above 0, is {reprlib.repr(text)}")


def path(text: str) -> Path:
    """An argparse type: a path, not empty as an unset shell variable is, which would mean the current directory."""
    if not text:
        raise argparse.ArgumentTypeError("is empty; give a name")
    return Path(os.path.expanduser(text))  # noqa: PTH111 - which raises for "~nobody"; no shell expands --out=~/x


def output_folder(text: str) -> Path:
    """An argparse type: a folder to write to, which does not look like a file unless there is such a folder."""
    from unit.images import SUFFIXES, UNSUPPORTED_SUFFIXES

    folder = path(text)
    suffix = folder.suffix.lower()
    if suffix in SUFFIXES | UNSUPPORTED_SUFFIXES | _FILE_SUFFIXES and not os.path.isdir(folder):  # noqa: PTH112 - as below
        raise argparse.ArgumentTypeError(f"{reprlib.repr(text)} looks like a file; give a folder")
    return folder


def output_file(*suffixes: str) -> Callable[[str], Path]:
    """Return an argparse type: a file to write, whose suffix fits, so that none of another kind is replaced."""

    def parse(text: str) -> Path:
        file = path(text)
        if file.suffix.lower() not in suffixes or os.path.isdir(file):  # noqa: PTH112 - Path.is_dir raises for some names
            raise argparse.ArgumentTypeError(f"must be a {' or '.join(suffixes)} file, is {reprlib.repr(text)}")
        return file

    return parse


def refuse_input(out: Path, inputs: Iterable[str | Path]) -> None:
    """Raise ConfigError if the file to write is one of those that are read, however its path is written."""
    with suppress(OSError):  # there is no such file yet
        status = out.stat()
        for file in inputs:
            with suppress(OSError):
                if os.path.samestat(status, os.stat(file)):  # noqa: PTH116 - a million files
                    raise ConfigError(f"{escape(out)}: is an input; give another file to write")


def device_name(text: str) -> str:
    """An argparse type: the name of a device."""
    if not re.fullmatch(DEVICE_NAMES, text):
        raise argparse.ArgumentTypeError(f"must be auto, cpu, cuda, cuda:N or mps, is {reprlib.repr(text)}")
    return text


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add MODEL, --device and --precision."""
    parser.add_argument("model", metavar="MODEL", help="a run directory or a .safetensors file")
    add_device_arguments(parser)


def add_size_argument(parser: argparse.ArgumentParser) -> None:
    """Add --size."""
    size_help = (
        "short side the network works at (default: the image's own); a smaller one takes less memory, and the result, "
        "resized back, is blurred"
    )
    parser.add_argument("--size", type=integer(16, 10_000), metavar="N", help=size_help)


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --device and --precision."""
    device_help = "auto, cpu, cuda, cuda:N or mps (default: %(default)s)"
    parser.add_argument("--device", type=device_name, default="auto", help=device_help)
    precision_help = "precision of the convolutions: %(choices)s (default: %(default)s)"
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto", help=precision_help)
