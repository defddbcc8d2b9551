"""``report``: write a run's report as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence

from unit.cli.arguments import Parser, add_device_arguments, add_size_argument, path
from unit.errors import escape
from unit.evaluation.report.run import Run


def run(argv: Sequence[str]) -> int:
    """Write the report, and return the exit status."""
    arguments = make_parser().parse_args(argv)
    Run(arguments.run)  # refuses what is not a run directory, before torch, which takes seconds, is imported
    from unit.devices import resolve_device, resolve_precision
    from unit.evaluation.report.write import write_report

    resolve_precision(arguments.precision, resolve_device(arguments.device))  # an error here, not a line in the report
    print(escape(write_report(arguments.run, arguments.device, arguments.precision, size=arguments.size)))
    return 0


def make_parser() -> Parser:
    """Return the verb's parser."""
    parser = Parser(
        "report",
        description="Write RUN/report.html: a single file with images, metrics compared with the identity "
        "baseline, curves, samples over the steps, worst and best, data, configuration and how the parts of the run "
        "ended. Missing parts are named in the report. Works during training too.",
        epilog="example: %(prog)s runs/sunny-rainy",
    )
    parser.add_argument("run", type=path, metavar="RUN", help="a run directory")
    add_size_argument(parser)
    add_device_arguments(parser)
    return parser
