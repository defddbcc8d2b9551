"""``adapt``: classify the digits of a target without one of its labels (the paper's domain adaptation)."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unit.cli.arguments import Parser, add_device_arguments, integer, output_folder, path
from unit.digits.config import RECIPES, SETS, AdaptationConfig, DigitsConfig, make_config
from unit.digits.source import require_digits
from unit.errors import escape

if TYPE_CHECKING:
    from unit.training.adaptation import AdaptationResult


def run(argv: Sequence[str]) -> int:
    """Train as the arguments say, and return the exit status."""
    arguments = make_parser().parse_args(argv)
    data = DigitsConfig(root=str(arguments.root), source=arguments.source, target=arguments.target)
    keys = {key: getattr(arguments, key) for key in ("seed", "steps", "device", "precision")}
    config = make_config(data, arguments.recipe, **keys)
    if not arguments.download:
        for name in (data.source, data.target):
            require_digits(arguments.root, name)
    default = f"{data.source}-{data.target}-{arguments.recipe}-{config.train.seed}"
    # Imported here because torch takes seconds, which --help and mistakes on the command line need not wait for.
    from tqdm.contrib.logging import logging_redirect_tqdm

    from unit.training.adaptation import adapt
    from unit.training.distributed import is_main_process

    if not is_main_process():
        logging.getLogger().setLevel(logging.ERROR)
    with logging_redirect_tqdm():
        result = adapt(
            config,
            arguments.out or Path("runs") / default,
            restart=arguments.restart,
            download=arguments.download,
        )
    if is_main_process():
        print(json.dumps(as_json(arguments.recipe, config, result)) if arguments.json else summary(config, result))
    return result.exit_status


def make_parser() -> Parser:
    """Return the verb's parser."""
    parser = Parser(
        "adapt",
        description="Train a classifier of one set of digits with the labels of another alone, as the paper does, and "
        "measure it on the whole test set. The same command again resumes.",
        epilog="example: %(prog)s --source usps --target mnist --root data/digits --download",
    )
    parser.add_argument("--source", choices=SETS, required=True, help="the set with labels: %(choices)s")
    parser.add_argument("--target", choices=SETS, required=True, help="the set to classify: %(choices)s")
    root_help = "folder of the sets in torchvision's layout (MNIST/raw, USPS, SVHN)"
    parser.add_argument("--root", type=path, metavar="DIR", required=True, help=root_help)
    parser.add_argument("--download", action="store_true", help="fetch the sets that are missing into --root")
    recipe_help = "%(choices)s: the paper's, with later ingredients, the floor and the ceiling (default: %(default)s)"
    parser.add_argument("--recipe", choices=tuple(RECIPES), default="modern", help=recipe_help)
    parser.add_argument("--seed", type=integer(0), default=0, metavar="N", help="default: %(default)s")
    steps_help = "default: 10,000, with SVHN 200,000"
    parser.add_argument("--steps", type=integer(1), metavar="N", help=steps_help)
    out_help = "the run's directory (default: runs/SOURCE-TARGET-RECIPE-SEED)"
    parser.add_argument("--out", type=output_folder, metavar="DIR", help=out_help)
    parser.add_argument("--restart", action="store_true", help="start at step 0; keep the old run as OUT.1")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    add_device_arguments(parser)
    return parser


def as_json(recipe: str, config: AdaptationConfig, result: AdaptationResult) -> dict[str, Any]:
    """Return the result for programs."""
    from unit.devices import versions

    best = result.best_on_test
    return {
        "source": config.data.source,
        "target": config.data.target,
        "recipe": recipe,
        "seed": config.train.seed,
        "step": result.step,
        "accuracy": result.accuracy,
        "best_selected_on_test": {"step": best[0], "accuracy": best[1]} if best else None,
        "test_images": result.test_images,
        "seconds": round(result.seconds, 1),
        "run": str(result.out),
        "versions": versions(),
    }


def summary(config: AdaptationConfig, result: AdaptationResult) -> str:
    """Describe a run's result, and what it left."""
    from unit.evaluation.report.write import REPORT_FILE

    lines = [f"{result.out}: {'stopped' if result.exit_status else 'ended'} at step {result.step}"]
    if result.accuracy is not None:
        sets = f"{config.data.source} to {config.data.target}"
        lines.append(f"accuracy:    {result.accuracy:.4f} ({sets}, last step, all {result.test_images} test images)")
    if result.best_on_test:
        step, best = result.best_on_test
        lines.append(f"best:        {best:.4f}, at step {step}: selected on the test set, so not a result")
    if result.exit_status:
        lines.append("to resume, run the same command, without --restart")
    if (result.out / REPORT_FILE).is_file():
        lines.append(f"report:      {result.out}/{REPORT_FILE}")
    return "\n".join(map(escape, lines))
