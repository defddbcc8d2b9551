"""Translate images with a trained model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from unit.cli import translate_streams, translate_videos, translate_watch
from unit.cli.arguments import Parser, add_model_arguments, add_size_argument, fraction, integer, path
from unit.cli.translate_marks import add_provenance_arguments, signer_of
from unit.cli.translate_summary import Summary
from unit.domains import Domain, source_domain
from unit.errors import ConfigError
from unit.translation.files.jobs import Job, Outcome, find_images, plan_jobs
from unit.translation.files.shares import ALL, Share
from unit.translation.model_file import read_header
from unit.translation.video.jobs import VIDEO_FORMATS, split_videos

if TYPE_CHECKING:
    from unit.translation.files.image_files import Settings
    from unit.translation.translator import Translator

SUFFIXES = {"png": ".png", "jpg": ".jpg", "webp": ".webp", "tiff": ".tif", "avif": ".avif", "same": None}


def run(argv: Sequence[str]) -> int:
    """Translate as the arguments say, and return the exit status: 1 if an image failed."""
    arguments = make_parser().parse_intermixed_args(argv)
    if not arguments.inputs and arguments.watch is None:
        raise ConfigError("no INPUT; give files or folders, - for standard input, or --watch FOLDER")
    _, names = read_header(Path(arguments.model))
    source = source_domain(arguments.direction, names)
    if arguments.watch is not None:
        return translate_watch.run(arguments, _image_suffix(arguments), partial(_load, arguments, source))
    if "-" in arguments.inputs or str(arguments.out) == "-":
        return translate_streams.run(arguments, _image_suffix(arguments), partial(_load, arguments, source))
    images, missing = find_images(arguments.inputs, arguments.out)
    images, clips = split_videos(images, arguments.out)
    jobs = plan_jobs(images, arguments.out, _image_suffix(arguments), arguments.samples) if images or not clips else []
    video_jobs = translate_videos.plan(clips, arguments) if clips else []
    share = Share.of_process()
    outcomes = _translate(arguments, source, jobs, video_jobs, share) if jobs or video_jobs else iter(())
    total, quiet = len(range(share.rank, len(jobs), share.count)), share.rank > 0 or not sys.stderr.isatty()
    bar = tqdm(outcomes, total=total, unit="image", disable=total < 2 or quiet)
    summary = Summary(arguments, share)
    with logging_redirect_tqdm():
        for outcome in chain(missing if share.rank == 0 else (), bar):
            summary.add(outcome)
    summary.log()
    share.wait_for_others()
    return 1 if summary.counts["failed"] else 0


def _translate(
    arguments: argparse.Namespace, source: Domain, jobs: Sequence[Job], video_jobs: Sequence[Job], share: Share
) -> Iterator[Outcome]:
    translator, settings = _load(arguments, source, share, len(jobs))
    from unit.translation.files.image_files import translate_images

    yield from translate_images(translator, jobs, settings, share)
    if video_jobs := video_jobs[share.rank :: share.count]:
        yield from translate_videos.translate(
            translator, video_jobs, settings, arguments, SUFFIXES.get(arguments.format) or ".png"
        )


def _load(
    arguments: argparse.Namespace, source: Domain, share: Share = ALL, images: int = 0
) -> tuple[Translator, Settings]:
    signer = signer_of(arguments)
    # Imported here because torch takes seconds, which --help and mistakes on the command line need not wait for.
    from unit.translation.files.image_files import Settings
    from unit.translation.onnx_backend import with_backend
    from unit.translation.translator import Translator

    translator = Translator.load(
        arguments.model, share.device(arguments.device), arguments.precision, arguments.tile, arguments.detail
    )
    translator = with_backend(translator, arguments.backend, source, images)
    settings = Settings(
        source=source,
        size=arguments.size,
        samples=arguments.samples,
        seed=arguments.seed,
        strength=arguments.strength,
        batch_size=arguments.batch_size or 1,
        quality=arguments.quality,
        overwrite=arguments.overwrite,
        keep_gray=arguments.keep_gray,
        provenance=not arguments.no_provenance,
        signer=signer,
    )
    return translator, settings


def _image_suffix(arguments: argparse.Namespace) -> str | None:
    kind = arguments.format or "png"
    if kind not in SUFFIXES:
        raise ConfigError(f"--format {kind}: is for videos; translate images by a command of their own")
    return SUFFIXES[kind]


def _tile(text: str) -> int | Literal["auto"] | None:
    """An argparse type: auto, off or pixels."""
    if text == "auto":
        return "auto"
    return None if text == "off" else integer(1)(text)


def make_parser() -> Parser:
    """Return the verb's parser."""
    parser = Parser(
        "translate",
        description="Translate images of one domain into the other. An output has exactly the size and the name of its "
        "input; an unreadable image is reported by name, and the others are still translated.",
        epilog="example: %(prog)s runs/sunny-rainy --direction sunny2rainy photos '*.jpg' --out rainy",
    )
    add_model_arguments(parser)
    inputs_help = "files, folders (recursive) or quoted patterns; videos by name or pattern; -: standard input"
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help=inputs_help)
    parser.add_argument("--direction", required=True, help="a2b or b2a, or by the names: sunny2rainy")
    out_help = "a folder, or a file for one image or video; -: standard output"
    parser.add_argument("--out", required=True, type=path, metavar="PATH", help=out_help)
    watch_help = "translate the images in this folder, and those that appear there, until Ctrl-C"
    parser.add_argument("--watch", type=path, metavar="FOLDER", help=watch_help)
    add_provenance_arguments(parser)
    add_size_argument(parser)
    tile_help = (
        "compute each image in strips of N pixels, which takes less memory and gives the same result: auto (the "
        "default; large images only), N or off"
    )
    parser.add_argument("--tile", type=_tile, default="auto", metavar="N", help=tile_help)
    detail_help = (
        "how to translate images well over the trained size: native, at their own; guided, at the trained size, with "
        "the change carried to the full one; auto (the default), what was better in training"
    )
    backend_help = (
        "onnx: ONNX Runtime, faster in fp32 on a CPU after some seconds of exporting, once per model; auto (the "
        "default): for 1,000 images or more, if it is installed"
    )
    parser.add_argument("--backend", choices=("auto", "torch", "onnx"), default="auto", help=backend_help)
    parser.add_argument("--detail", choices=("auto", "native", "guided"), default="auto", help=detail_help)
    format_help = (
        "of images (default: png; same: the input's), or of videos (default: mp4); an image format makes a video a "
        "folder of frames"
    )
    parser.add_argument("--format", choices=(*SUFFIXES, *VIDEO_FORMATS), help=format_help)
    quality_help = "of JPEG, WebP and AVIF (default: 95) and videos (default: 65; 100 with .mkv: every pixel)"
    parser.add_argument("--quality", type=integer(1, 100), metavar="Q", help=quality_help)
    gray_help = "write the translations of gray images in gray, rather than in the colours of the other domain"
    parser.add_argument("--keep_gray", action="store_true", help=gray_help)
    parser.add_argument("--overwrite", action="store_true", help="replace existing outputs, but never an input")
    samples_help = "outputs per image, with noise added to the code (default: one, without noise)"
    parser.add_argument("--samples", type=integer(1, 1000), metavar="N", help=samples_help)
    seed_help = "seed of the first sample's noise (default: %(default)s)"
    parser.add_argument("--seed", type=integer(0, 2**32 - 1), default=0, metavar="N", help=seed_help)
    strength_help = "from 0, the image as the model reconstructs it, to 1, its translation (default: %(default)g)"
    parser.add_argument("--strength", type=fraction, default=1.0, metavar="S", help=strength_help)
    batch_help = "images of equal size to translate together (default: 1; frames of a video: up to 8)"
    parser.add_argument("--batch_size", type=integer(1), metavar="N", help=batch_help)
    deflicker_help = "steady videos along their motion, without blurring details"
    parser.add_argument("--deflicker", action="store_true", help=deflicker_help)
    parser.add_argument("--json", action="store_true", help="print one JSON object per image to standard output")
    return parser
