"""``importance``: measure how much each weight of a run's model matters, so that fine-tuning can spare it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from unit.cli.arguments import Parser, device_name, integer, path
from unit.errors import ConfigError, escape
from unit.evaluation.run_images import open_run_datasets
from unit.translation.model_file import read_header

log = logging.getLogger(__name__)


def run(argv: Sequence[str]) -> int:
    """Measure, write the file, and return the exit status."""
    arguments = make_parser().parse_args(argv)
    config, _ = read_header(arguments.run)
    if not arguments.run.is_dir():
        raise ConfigError(f"{escape(arguments.run)}: a model file has no images; give the directory of its run")
    datasets = open_run_datasets(arguments.run, config)
    # Imported here because torch takes seconds, which --help and mistakes on the command line need not wait for.
    from unit.devices import configure, resolve_device
    from unit.training.importance import measure_importance

    device = resolve_device(arguments.device)
    configure(device, deterministic=None)
    measured = measure_importance(arguments.run, datasets, arguments.images, device)
    log.info(
        "%d images of %s and %d of %s: mean importance %.3g%s",
        *(measured.images.a, datasets.names.a, measured.images.b, datasets.names.b, measured.mean),
        ", with what this run had to remember itself" if measured.remembers else "",
    )
    print(escape(measured.file))
    return 0


def make_parser() -> Parser:
    """Return the verb's parser."""
    parser = Parser(
        "importance",
        description="Measure how much each weight of a run's encoders and generators matters on the run's own images, "
        "and write RUN/importance.safetensors. Training with --init_from RUN and --loss.memory then keeps the weights "
        "that matter: it learns new images without forgetting these (Memory Aware Synapses).",
        epilog="example: %(prog)s runs/sunny-rainy",
    )
    parser.add_argument("run", type=path, metavar="RUN", help="a run directory, whose images still exist")
    images_help = "training images of each domain to measure on, taken evenly (default: %(default)s)"
    parser.add_argument("--images", type=integer(1, 10**6), default=200, metavar="N", help=images_help)
    device_help = "auto, cpu, cuda, cuda:N or mps (default: %(default)s)"
    parser.add_argument("--device", type=device_name, default="auto", help=device_help)
    return parser
