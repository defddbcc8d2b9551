"""``evaluate``: how well a model translates test images."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from unit.cli.arguments import Parser, add_model_arguments, add_size_argument, output_file, path, refuse_input
from unit.data.datasets import HeldOut, open_held_out
from unit.domains import Domain, PerDomain
from unit.errors import ConfigError, escape
from unit.evaluation.metric_table import table
from unit.evaluation.run_images import open_run_datasets
from unit.images import to_image, write_image
from unit.translation.model_file import read_header

log = logging.getLogger(__name__)


def run(argv: Sequence[str]) -> int:
    """Evaluate as the arguments say, and return the exit status."""
    arguments = make_parser().parse_args(argv)
    test = held_out(arguments)
    if arguments.sheet:
        refuse_input(arguments.sheet, (file for i in Domain for file in test.images[i].files()))
    # Imported here because torch takes seconds, which --help and mistakes on the command line need not wait for.
    from unit.evaluation.evaluate import Evaluator
    from unit.evaluation.features import features_if_installed, load_features
    from unit.evaluation.grids import contact_sheet
    from unit.evaluation.st_lpips import st_lpips_if_installed
    from unit.translation.translator import Translator

    translator, kind = Translator.load(arguments.model, arguments.device, arguments.precision), arguments.features
    features = load_features(kind, translator.device) if kind else features_if_installed(translator.device)
    # As translate does, go on without what can't be read.
    data = replace(translator.config.data, on_bad_image="skip")
    translator.config = replace(translator.config, data=data)
    st_lpips = st_lpips_if_installed(translator.device)
    evaluator = Evaluator(test, data, features, native=True, size=arguments.size, st_lpips=st_lpips)
    metrics = evaluator.metrics(translator)
    name = features.name if features else None
    if arguments.json:
        print(json.dumps(metrics | {"features": name}))
    else:
        print(table(metrics, translator.names, name, evaluator.fits_swapped(translator, metrics)))
    if arguments.sheet:
        write_image(to_image(contact_sheet(translator, test, size=arguments.size)), arguments.sheet)
        log.info("%s: input, translation%s", escape(arguments.sheet), " and the real image" if test.paired else "")
    if evaluator.left_out:
        log.error("%d of the %d images of a domain were left out", evaluator.left_out, max(test.images.map(len)))
    return int(bool(evaluator.left_out))


def make_parser() -> Parser:
    """Return the verb's parser."""
    parser = Parser(
        "evaluate",
        description="Evaluate a model on images it was not trained on, compared with the identity baseline (the input "
        "itself) and real images. What is evaluated is what translate writes. Without folders: the test images of the "
        "model's own run.",
        epilog="example: %(prog)s runs/sunny-rainy --a photos/sunny-test --b photos/rainy-test",
    )
    add_model_arguments(parser)
    parser.add_argument("--a", type=path, metavar="DIR", help="test images of domain A")
    parser.add_argument("--b", type=path, metavar="DIR", help="test images of domain B")
    add_size_argument(parser)
    paired_help = "the folders hold aligned pairs, in the order of their names"
    parser.add_argument("--paired", action="store_true", help=paired_help)
    features_help = "network behind KID and FID: lite0 (default, from a package) or inception (as published; downloads)"
    parser.add_argument("--features", choices=("lite0", "inception"), help=features_help)
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON")
    sheet_help = "write a contact sheet: input, translation and, for pairs, the real image"
    parser.add_argument(
        "--sheet", type=output_file(".png", ".jpg", ".jpeg", ".webp"), metavar="FILE.png", help=sheet_help
    )
    return parser


def held_out(arguments: argparse.Namespace) -> HeldOut:
    """Return the images of --a and --b, or the model's own."""
    config, _ = read_header(Path(arguments.model))
    if (arguments.a is None) != (arguments.b is None):
        raise ConfigError("--a and --b: give both folders, or neither")
    if arguments.a is not None:
        return open_held_out(PerDomain(arguments.a, arguments.b), arguments.paired, config.data.max_pixels)
    model = Path(arguments.model)
    return open_run_datasets(model if model.is_dir() else model.parent, config).test
