"""``interpolate``: walk between two images through the code."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from unit.cli.arguments import Parser, add_model_arguments, integer, path
from unit.domains import domain_named
from unit.errors import ConfigError, UserError, escape, format_bytes
from unit.images import read_image, resize_short_side
from unit.machine import available_memory
from unit.translation.files.jobs import is_folder
from unit.translation.model_file import read_header

log = logging.getLogger(__name__)
_FILES = (".gif", ".webp", ".mp4", ".mkv")
_HELD = (".gif", ".webp")
"""All frames of these are in memory at once."""
_BYTES_PER_PIXEL = 12
"""of a frame there, and of its copies while the file is written"""


def run(argv: Sequence[str]) -> int:
    """Interpolate as the arguments say, and return the exit status."""
    arguments = make_parser().parse_args(argv)
    config, names = read_header(Path(arguments.model))
    if len(arguments.domain) > 2:
        raise ConfigError("--domain: there are two images; give one domain for both, or one for each")
    domains = [domain_named(text, names) for text in arguments.domain]
    inputs = (arguments.first, arguments.second)
    outputs = _outputs(arguments.out, inputs, arguments.frames, arguments.overwrite)
    first, second = (read_image(image, config.data.max_pixels) for image in inputs)
    if arguments.size:
        first = resize_short_side(first, arguments.size)
    if arguments.out.suffix.lower() in _HELD:
        _require_memory(arguments.frames * 2 * first.width * first.height * _BYTES_PER_PIXEL)
    if first.width * second.height != second.width * first.height:
        log.warning("%s: cropped around its centre to the shape of the first image", escape(arguments.second))
    # Imported here because torch takes seconds, which --help and mistakes on the command line need not wait for.
    from unit.translation.interpolation import walk, write_frames
    from unit.translation.translator import Translator

    translator = Translator.load(arguments.model, arguments.device, arguments.precision)
    frames = walk(translator, (first, domains[0]), (second, domains[-1]), arguments.frames)
    bar = tqdm(frames, total=arguments.frames, unit="frame", disable=not sys.stderr.isatty())
    # No camera has seen what lies between two images: the frames are marked as generated, as samples are.
    write_frames(iter(bar), outputs, translator.provenance(domains[0], sampled=True))
    sides = f"{names.a} at the left, {names.b} at the right"
    log.info("%s: %d frames, %s", escape(arguments.out), arguments.frames, escape(sides))
    return 0


def _require_memory(needed: int) -> None:
    if needed > (free := available_memory()):
        sizes = f"take {format_bytes(needed)} of memory in a GIF or WebP file, but {format_bytes(free)} are free"
        raise UserError(f"--frames: they {sizes}; give fewer, a smaller --size or an .mp4 file")


def _outputs(out: Path, inputs: Sequence[Path], frames: int, overwrite: bool) -> list[Path]:
    """Return the one file to write, or one for each frame."""
    is_file, exists_as_folder = out.suffix.lower() in _FILES, is_folder(out)
    if not is_file and re.fullmatch(r"\.(?!v\d)[A-Za-z][A-Za-z0-9]*", out.suffix) and not exists_as_folder:
        raise ConfigError(f"--out {escape(out)}: must end in {', '.join(_FILES)}, or be a folder for images")
    if os.path.lexists(out) and is_file == exists_as_folder:
        raise ConfigError(f"--out {escape(out)}: {'is a folder' if is_file else 'not a folder'}; give another name")
    outputs = [out] if is_file else [out / f"{number + 1:06d}.png" for number in range(frames)]
    for output in outputs:
        if os.path.realpath(output) in map(os.path.realpath, inputs):
            raise ConfigError(f"--out {escape(out)}: {escape(output)} is an input; give another name")
        if os.path.lexists(output) and not overwrite:
            raise ConfigError(f"--out {escape(out)}: {escape(output)} exists already; --overwrite replaces it")
    return outputs


def make_parser() -> Parser:
    """Return the verb's parser."""
    parser = Parser(
        "interpolate",
        description="Walk between two images through the code z that both domains share, and show each code in both "
        "domains, side by side. The second image is scaled and cropped to the size of the first.",
        epilog="example: %(prog)s runs/sunny-rainy 1.jpg 2.jpg --domain sunny --out walk.gif",
    )
    add_model_arguments(parser)
    parser.add_argument("first", type=path, metavar="IMAGE1", help="where the walk begins")
    parser.add_argument("second", type=path, metavar="IMAGE2", help="where it ends")
    domain_help = "the images' domain: a, b or its name; two of them if the second image is of another domain"
    parser.add_argument("--domain", nargs="+", required=True, metavar="DOMAIN", help=domain_help)
    out_help = "a .gif, .webp, .mp4 or .mkv file (videos need pip install av), or a folder for PNG images"
    parser.add_argument("--out", required=True, type=path, metavar="PATH", help=out_help)
    parser.add_argument(
        "--frames", type=integer(2, 10_000), default=40, metavar="N", help="20 a second (default: %(default)s)"
    )
    size_help = "scale the first image, and so the frames, to this short side (default: its own)"
    parser.add_argument("--size", type=integer(16, 10_000), metavar="N", help=size_help)
    parser.add_argument("--overwrite", action="store_true", help="replace existing outputs, but never an input")
    return parser
