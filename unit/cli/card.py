"""``card``: write a model card for the Hugging Face Hub."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unit.cli.arguments import Parser, add_model_arguments, add_size_argument, output_file, path
from unit.cli.evaluate import held_out
from unit.errors import ConfigError, DataError, escape
from unit.files import atomic_write
from unit.translation.model_file import read_header

if TYPE_CHECKING:
    from unit.data.datasets import HeldOut
    from unit.evaluation.metric_table import Metrics
    from unit.translation.translator import Translator

log = logging.getLogger(__name__)


def run(argv: Sequence[str]) -> int:
    """Write the card, and return the exit status."""
    arguments = make_parser().parse_args(argv)
    model = Path(arguments.model)
    read_header(model)
    folder = model if model.is_dir() else model.parent
    out = arguments.out or folder / "README.md"
    if os.path.lexists(out) and not arguments.overwrite:
        raise ConfigError(f"{escape(out)}: exists already; --overwrite replaces it")
    test = _test_images(arguments)
    # Imported here because torch takes seconds, which --help and mistakes on the command line need not wait for.
    from unit.evaluation.card import Card, model_card, open_questions
    from unit.translation.translator import Translator

    translator = Translator.load(model, arguments.device, arguments.precision)
    metrics, features = _measure(translator, test, arguments.size) if test else (None, None)
    card = model_card(translator, Card(folder, metrics, features, arguments.licence))
    atomic_write(out, card.encode())
    print(escape(out))
    for question in open_questions(translator, arguments.licence):
        log.warning("answer before you publish the model: %s", question)
    return 0


def _test_images(arguments: argparse.Namespace) -> HeldOut | None:
    """Return the images to measure on, if they are there."""
    try:
        return held_out(arguments)
    except (ConfigError, DataError) as error:
        if arguments.a or arguments.b:
            raise
        log.warning("the card has no metrics: %s (--a and --b measure on other images)", error)
        return None


def _measure(translator: Translator, test: HeldOut, size: int | None) -> tuple[Metrics, str | None]:
    from unit.evaluation.evaluate import Evaluator
    from unit.evaluation.features import features_if_installed
    from unit.evaluation.st_lpips import st_lpips_if_installed

    features, st_lpips = features_if_installed(translator.device), st_lpips_if_installed(translator.device)
    evaluator = Evaluator(test, translator.config.data, features, native=True, size=size, st_lpips=st_lpips)
    return evaluator.metrics(translator), features.name if features else None


def make_parser() -> Parser:
    """Return the verb's parser."""
    parser = Parser(
        "card",
        description="Write README.md, the model card of the Hugging Face Hub, beside a model: its domains, the numbers "
        "of images and steps, metrics compared with the identity baseline, intended use, where the photos come from "
        "and whether people in them consented (data.licence and data.people of the configuration), and the licence. "
        "Measures on the held-out images as evaluate does.",
        epilog="example: %(prog)s runs/sunny-rainy --licence CC-BY-4.0",
    )
    add_model_arguments(parser)
    parser.add_argument("--licence", metavar="TEXT", help="licence of the model (default: that of the images)")
    parser.add_argument("--a", type=path, metavar="DIR", help="test images of domain A (default: the run's)")
    parser.add_argument("--b", type=path, metavar="DIR", help="test images of domain B")
    parser.add_argument("--paired", action="store_true", help="these folders hold aligned pairs, in the order of names")
    add_size_argument(parser)
    out_help = "the file to write (default: README.md beside it)"
    parser.add_argument("--out", type=output_file(".md"), metavar="FILE.md", help=out_help)
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    return parser
