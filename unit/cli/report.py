"""``report``: a run as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence

from unit.cli.arguments import Parser, device_name, path
from unit.devices import resolve_device, resolve_precision
from unit.evaluation.report.write import write_report


def run(argv: Sequence[str]) -> int:
    """Write the report; returns the exit status."""
    parser = Parser(
        prog="python -m unit report",
        description="Write RUN/report.html: the run as one file that loads nothing from elsewhere. Images, metrics "
        "beside those of doing nothing, curves, the samples over the steps, worst and best, data, configuration. What "
        "is missing is said there. Also while the run goes on.",
        epilog="example: python -m unit report runs/sunny-rainy",
    )
    parser.add_argument("run", type=path, metavar="RUN", help="a run's folder")
    device_help = "auto, cpu, cuda, cuda:N or mps (default: %(default)s)"
    parser.add_argument("--device", type=device_name, default="auto", help=device_help)
    precision_help = "of the convolutions: %(choices)s (default: %(default)s)"
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto", help=precision_help)
    arguments = parser.parse_args(argv)
    resolve_precision(arguments.precision, resolve_device(arguments.device))  # refused here, not in the report
    print(write_report(arguments.run, arguments.device, arguments.precision))
    return 0
