"""``completion``: print a script that lets a shell complete verbs, options and files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module

from unit.cli import VERBS
from unit.cli.arguments import Parser, output_folder, path
from unit.cli.train_arguments import make_documented_parser
from unit.config import Config
from unit.errors import ConfigError

_FILES = {"model", "models", "run", "inputs", "files", "train.init_from"}
"""Arguments that are files, by their names; others are known by their type."""


def run(argv: Sequence[str]) -> int:
    """Print the script, and return the exit status."""
    arguments = make_parser().parse_args(argv)
    try:
        import shtab
    except ImportError:
        raise ConfigError("the package shtab is not installed; pip install shtab") from None
    print(shtab.complete(_make_command_parser(shtab.FILE), arguments.shell))
    return 0


def _make_command_parser(complete_file: object) -> argparse.ArgumentParser:
    """Build the parser of ``unit VERB ...`` out of the verbs' own."""
    command = argparse.ArgumentParser(prog="unit")
    verbs = command.add_subparsers(parser_class=argparse.ArgumentParser)
    for verb, meaning in VERBS.items():
        if verb == "train":
            parser = make_documented_parser(Config(), "the defaults")
        else:
            parser = import_module(f"unit.cli.{verb}").make_parser()
        for action in parser._actions:
            if action.type in (path, output_folder) or action.dest in _FILES:
                action.complete = complete_file  # type: ignore[attr-defined]  # where shtab looks for it
        verbs.add_parser(verb, parents=[parser], help=meaning, add_help=False, conflict_handler="resolve")
    return command


def make_parser() -> Parser:
    """Return the verb's parser."""
    parser = Parser(
        "completion",
        description="Print a completion script for a shell. Needs pip install shtab.",
        epilog="example: %(prog)s bash > ~/.local/share/bash-completion/completions/unit",
    )
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    return parser
