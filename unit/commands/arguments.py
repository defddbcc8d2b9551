"""What several verbs' command lines have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NoReturn

from unit.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """argparse with errors as ConfigError: one line, like every other error."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line."""
        raise ConfigError(f"{message}; {self.prog} --help says more")


def whole_number(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    """A type for argparse: an integer from `minimum` to `maximum`."""
    limits = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < minimum or (maximum is not None and int(text) > maximum):
            raise argparse.ArgumentTypeError(f"must be a whole number {limits}, is {text!r}")
        return int(text)

    return parse


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL, --device and --precision."""
    parser.add_argument("model", metavar="MODEL", help="a run's folder or a .safetensors file")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)")
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="of the convolutions (default: %(default)s)",
    )
