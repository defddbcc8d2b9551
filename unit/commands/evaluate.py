"""``evaluate``: how well a model translates aligned test pictures."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from unit.commands.arguments import Parser, add_model_arguments
from unit.data.datasets import HeldOut, open_datasets, open_held_out
from unit.domains import PerDomain
from unit.errors import ConfigError
from unit.evaluation.evaluate import contact_sheet, evaluate, table
from unit.images import to_image, write_image
from unit.translation.translator import Translator

log = logging.getLogger(__name__)


def run(argv: Sequence[str]) -> int:
    """Evaluate as the arguments say; returns the exit status."""
    arguments = _parser().parse_args(argv)
    translator = Translator.load(arguments.model, arguments.device, arguments.precision)
    test = _held_out(arguments, translator)
    if not test.paired:
        raise ConfigError("the figures need aligned pairs: give folders of pairs with --a DIR --b DIR --paired")
    figures = evaluate(translator, test)
    print(json.dumps(figures) if arguments.json else table(figures, translator.names))
    if arguments.sheet:
        write_image(to_image(contact_sheet(translator, test)), arguments.sheet)
        log.info("%s: input, translation and the real picture of the same scene", arguments.sheet)
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="python -m unit evaluate",
        description="Measure a model on aligned test pictures, beside doing nothing (the input itself) and, on the "
        "embedded streets, the same scenes drawn again. Without folders: the test pictures of the model's own run.",
        epilog="example: python -m unit evaluate runs/streets --a data/streets/testA --b data/streets/testB --paired",
    )
    add_model_arguments(parser)
    parser.add_argument("--a", type=Path, metavar="DIR", help="test pictures of domain A")
    parser.add_argument("--b", type=Path, metavar="DIR", help="test pictures of domain B")
    parser.add_argument("--paired", action="store_true", help="in the order of their names, they show the same scenes")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--sheet", type=Path, metavar="FILE.png", help="write inputs, translations and truth there")
    return parser


def _held_out(arguments: argparse.Namespace, translator: Translator) -> HeldOut:
    if (arguments.a is None) != (arguments.b is None):
        raise ConfigError("--a and --b: give both folders, or neither")
    if arguments.a is not None:
        return open_held_out(PerDomain(arguments.a, arguments.b), arguments.paired)
    return open_datasets(translator.config.data, translator.config.train.seed).test
