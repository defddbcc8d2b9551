"""Files in, translated files out: finding the pictures, naming the outputs, and translating one after another."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import torch
from PIL import Image

from unit.domains import Domain
from unit.errors import ConfigError, DataError, UserError, printable
from unit.images import SUFFIXES, read_image, resize_short_side, to_image, to_tensor, write_image
from unit.listing import list_images
from unit.translation.translator import Translator

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One picture to read and the files to write, one for each sample."""

    input: Path
    outputs: tuple[Path, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of one input."""

    input: str
    status: Literal["done", "skipped", "failed"]
    outputs: tuple[Path, ...] = ()
    size: tuple[int, int] | None = None
    """width and height of input and outputs"""
    reason: str | None = None
    """why it was skipped or failed"""


@dataclass(frozen=True)
class Settings:
    """How to translate pictures."""

    source: Domain
    """the domain the pictures are from"""
    size: int | None = None
    """short side that the network works at; None: the picture's own"""
    samples: int | None = None
    """so many outputs for each input, with noise in the code; None: one, without"""
    seed: int = 0
    """of that noise"""
    batch_size: int = 1
    """pictures of equal size that are translated together"""
    quality: int | None = None
    """of JPEG and WebP files"""
    overwrite: bool = False
    """write over existing outputs"""


def find_pictures(inputs: Sequence[str]) -> tuple[list[tuple[Path, PurePosixPath]], list[Outcome]]:
    """(path, place below the output folder) of each picture in files, folders (recursive) and patterns; and failures.

    A folder's pictures keep their place in it; where several folders are given, below the folder's name.
    """
    found: list[tuple[Path, PurePosixPath]] = []
    failed: list[Outcome] = []
    several = sum(Path(text).is_dir() for text in inputs) > 1
    for text in inputs:
        try:
            if Path(text).is_dir():
                top = PurePosixPath(Path(text).resolve().name if several else "")
                found += [(Path(text, name), top / name) for name in list_images(Path(text))]
            else:
                found += [(file, PurePosixPath(file.name)) for file in _files(text)]
        except DataError as error:
            failed.append(Outcome(text, "failed", reason=str(error)))
    return list(dict.fromkeys(found)), failed


def _files(text: str) -> list[Path]:
    """The file of that name, or else the files that fit the pattern."""
    if os.path.lexists(text):
        return [Path(text)]
    # Path.glob takes no absolute patterns
    files = [Path(name) for name in sorted(glob.glob(text, recursive=True)) if not Path(name).is_dir()]  # noqa: PTH207
    if not files:
        raise DataError(f"{printable(text)}: no such file or folder, and no file fits it as a pattern")
    return files


def plan_jobs(
    pictures: Sequence[tuple[Path, PurePosixPath]], out: Path, ending: str | None, samples: int | None
) -> list[Job]:
    """What to write where: below `out`, or to `out` itself where it names a file and there is one picture.

    Args:
        pictures: what `find_pictures` found.
        out: a folder, or a file for one picture.
        ending: ".png", ".jpg" or ".webp"; None: the input's own.
        samples: outputs for each picture, numbered from 1; None: one without a number.

    Raises:
        ConfigError: `out` names a file, but there are several pictures or samples, or two pictures would be written to
            one file.
    """
    if out.suffix.lower() in SUFFIXES and not out.is_dir():
        if len(pictures) != 1 or samples is not None:
            raise ConfigError(f"--out {printable(out)}: one file can't take {len(pictures)} pictures; give a folder")
        return [Job(pictures[0][0], (out,))]
    short = [_outputs(place.stem, place, ending, samples) for _, place in pictures]
    owners: dict[str, int] = {}
    for names in short:
        for name in names:
            owners[_key(name)] = owners.get(_key(name), 0) + 1
    jobs: list[Job] = []
    taken: dict[str, Path] = {}
    for (path, place), names in zip(pictures, short, strict=True):
        # x.png and x.jpg would both become x.png: only the one that is called so already may.
        if any(owners[_key(name)] > 1 and _key(name) != _key(place) for name in names):
            names = _outputs(place.name, place, ending, samples)
        for name in names:
            other = taken.setdefault(_key(name), path)
            if other != path:
                raise ConfigError(
                    f"{printable(other)} and {printable(path)} would both be written to {printable(name)}"
                )
        jobs.append(Job(path, tuple(out / name for name in names)))
    return jobs


def _outputs(stem: str, place: PurePosixPath, ending: str | None, samples: int | None) -> list[PurePosixPath]:
    numbers = [""] if samples is None else [f"-{k + 1}" for k in range(samples)]
    return [place.with_name(f"{stem}{number}{ending or place.suffix}") for number in numbers]


def _key(name: PurePosixPath) -> str:
    """Equal for names that some systems take for one file."""
    return str(name).casefold()


def translate_pictures(translator: Translator, jobs: Sequence[Job], settings: Settings) -> Iterator[Outcome]:
    """Translate one after another; what goes wrong with a picture is its outcome, and the others are done."""
    inputs = {identity for job in jobs if (identity := _identity(job.input))}
    waiting: list[tuple[Job, Image.Image]] = []
    for job in jobs:
        early = _refusal(job, inputs, settings.overwrite)
        if early:
            yield early
            continue
        try:
            image = read_image(job.input)
        except UserError as error:
            yield Outcome(str(job.input), "failed", reason=str(error))
            continue
        if waiting and (image.size != waiting[0][1].size or len(waiting) == settings.batch_size):
            yield from _translate_batch(translator, waiting, settings)
            waiting = []
        waiting.append((job, image))
    if waiting:
        yield from _translate_batch(translator, waiting, settings)


def _refusal(job: Job, inputs: set[tuple[int, int]], overwrite: bool) -> Outcome | None:
    for output in job.outputs:
        if _identity(output) in inputs:
            return Outcome(str(job.input), "failed", reason=f"{printable(output)} is an input; give another --out")
    if not overwrite and all(output.exists() for output in job.outputs):
        return Outcome(str(job.input), "skipped", job.outputs, reason="exists already; --overwrite does it again")
    return None


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _translate_batch(
    translator: Translator, batch: list[tuple[Job, Image.Image]], settings: Settings
) -> Iterator[Outcome]:
    seeds = [None] if settings.samples is None else [settings.seed + k for k in range(settings.samples)]
    images = [resize_short_side(image, settings.size) if settings.size else image for _, image in batch]
    x = torch.stack([to_tensor(image) for image in images])
    try:
        for number, seed in enumerate(seeds):
            translated = translator.translate(x, settings.source, seed)
            for (job, image), out in zip(batch, translated, strict=True):
                picture = to_image(out)
                if picture.size != image.size:
                    picture = picture.resize(image.size, Image.Resampling.LANCZOS)
                write_image(picture, job.outputs[number], settings.quality)
    except UserError as error:
        for job, _ in batch:
            yield Outcome(str(job.input), "failed", reason=str(error))
        return
    for job, image in batch:
        yield Outcome(str(job.input), "done", job.outputs, image.size)
