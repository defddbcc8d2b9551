"""``streets``: write the built-in streets as folders of PNG files, or a drive along one of them as videos."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from unit.cli.arguments import Parser, integer, output_folder
from unit.errors import DataError, escape
from unit.streets import DAY, NIGHT, Weather, write_streets

_RATE = 24
"""Frames per second of a drive."""


def run(argv: Sequence[str]) -> int:
    """Write the folders; return the exit status."""
    arguments = make_parser().parse_args(argv)
    weathers = NIGHT if arguments.night else DAY
    if arguments.drive:
        _write_drive(arguments.out, weathers, arguments.size, arguments.seed, arguments.drive)
    else:
        write_streets(arguments.out, arguments.size, arguments.train, arguments.test, arguments.seed, weathers)
    print(escape(arguments.out))
    return 0


def _write_drive(out: Path, weathers: Iterable[Weather], size: int, scene: int, seconds: int) -> None:
    from unit.streets.drive import drive
    from unit.translation.video.writing import write_images_as_video

    paths = {weather: out / f"{weather}.mkv" for weather in weathers}
    for path in paths.values():
        if path.exists():
            raise DataError(f"{escape(path)}: exists already; remove it or choose another folder")
    for weather, path in paths.items():
        frames = drive(scene, weather, size, seconds, _RATE)
        write_images_as_video(path, frames, _RATE, quality=100)


def make_parser() -> Parser:
    """Return the verb's parser."""
    parser = Parser(
        "streets",
        description="Render sunny (A) and rainy (B) streets: OUT/trainA and trainB share no scene, testA and testB are "
        "aligned pairs of scenes that training never sees.",
        epilog="example: %(prog)s data/streets --size 128 --train 2000",
    )
    parser.add_argument("out", type=output_folder, metavar="OUT", help="folder to write to")
    parser.add_argument("--size", type=integer(16, 8192), default=64, help="side in pixels (default: %(default)s)")
    parser.add_argument(
        "--train", type=integer(0, 10**6), default=1000, help="training scenes per weather (default: %(default)s)"
    )
    parser.add_argument("--test", type=integer(0, 10**6), default=100, help="test pairs (default: %(default)s)")
    parser.add_argument("--seed", type=integer(0), default=0, help="seed of the scenes (default: %(default)s)")
    night_help = "at night: A is dry under the moon, B is rainy"
    parser.add_argument("--night", action="store_true", help=night_help)
    drive_help = (
        "write OUT/sunny.mkv and OUT/rainy.mkv (night.mkv and rainy-night.mkv) instead: so many seconds of a drive "
        "along street SEED, the same in both weathers, without loss (pip install av)"
    )
    parser.add_argument("--drive", type=integer(1, 3600), metavar="SECONDS", help=drive_help)
    return parser
