"""``evaluate``: how well a model translates test images."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from unit.cli.arguments import Parser, add_model_arguments
from unit.data.datasets import HeldOut, open_datasets, open_held_out
from unit.domains import PerDomain
from unit.errors import ConfigError
from unit.evaluation.evaluate import contact_sheet, evaluate, table
from unit.evaluation.features import KINDS, Features, features_if_installed, load_features
from unit.images import to_image, write_image
from unit.translation.translator import Translator

log = logging.getLogger(__name__)


def run(argv: Sequence[str]) -> int:
    """Evaluate as the arguments say; returns the exit status."""
    arguments = _parser().parse_args(argv)
    translator = Translator.load(arguments.model, arguments.device, arguments.precision)
    test = _held_out(arguments, translator)
    features = _features(arguments.features, translator)
    metrics = evaluate(translator, test, features)
    name = features.name if features else None
    if arguments.json:
        print(json.dumps(metrics | {"features": name}))
    else:
        print(table(metrics, translator.names, name))
    if arguments.sheet:
        write_image(to_image(contact_sheet(translator, test)), arguments.sheet)
        log.info("%s: input, translation%s", arguments.sheet, " and the real image" if test.paired else "")
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="python -m unit evaluate",
        description="Measure a model on images it was not trained on, beside doing nothing (the input itself) and "
        "real images. Without folders: the test images of the model's own run.",
        epilog="example: python -m unit evaluate runs/sunny-rainy --a photos/sunny-test --b photos/rainy-test",
    )
    add_model_arguments(parser)
    parser.add_argument("--a", type=Path, metavar="DIR", help="test images of domain A")
    parser.add_argument("--b", type=Path, metavar="DIR", help="test images of domain B")
    parser.add_argument("--paired", action="store_true", help="in the order of their names, they show the same scenes")
    parser.add_argument(
        "--features",
        choices=KINDS,
        help="what KID and FID compare: lite0 (the default, comes in a package) or inception (as published, downloads "
        "weights once)",
    )
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON")
    parser.add_argument(
        "--sheet", type=Path, metavar="FILE.png", help="write inputs, translations and, of pairs, truth there"
    )
    return parser


def _features(kind: str | None, translator: Translator) -> Features | None:
    """Those asked for; unasked, Lite0's if they are there."""
    return load_features(kind, translator.device) if kind else features_if_installed(translator.device)


def _held_out(arguments: argparse.Namespace, translator: Translator) -> HeldOut:
    if (arguments.a is None) != (arguments.b is None):
        raise ConfigError("--a and --b: give both folders, or neither")
    if arguments.a is not None:
        return open_held_out(PerDomain(arguments.a, arguments.b), arguments.paired)
    return open_datasets(translator.config.data, translator.config.train.seed).test
