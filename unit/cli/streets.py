"""``streets``: write the built-in streets as folders of PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unit.cli.arguments import Parser, integer
from unit.errors import escape
from unit.streets import write_streets


def run(argv: Sequence[str]) -> int:
    """Write the folders; return the exit status."""
    parser = Parser(
        prog="python -m unit streets",
        description="Render sunny (A) and rainy (B) streets: OUT/trainA and trainB share no scene, testA and testB are "
        "aligned pairs of scenes that training never sees.",
        epilog="example: python -m unit streets data/streets --size 128 --train 2000",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write to")
    parser.add_argument("--size", type=integer(16), default=64, help="side in pixels (default: %(default)s)")
    parser.add_argument(
        "--train", type=integer(0), default=1000, help="training scenes per weather (default: %(default)s)"
    )
    parser.add_argument("--test", type=integer(0), default=100, help="test pairs (default: %(default)s)")
    parser.add_argument("--seed", type=integer(0), default=0, help="seed of the scenes (default: %(default)s)")
    arguments = parser.parse_args(argv)
    write_streets(arguments.out, arguments.size, arguments.train, arguments.test, arguments.seed)
    print(escape(arguments.out))
    return 0
