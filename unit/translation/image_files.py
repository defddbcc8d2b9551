"""Files in, translated files out: finding the images, naming the outputs, and translating one after another."""

from __future__ import annotations

import fnmatch
import glob
import logging
import os
import unicodedata
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar

import torch
from PIL import Image
from torch import Tensor

from unit.domains import Domain
from unit.errors import ConfigError, DataError, ModelError, UserError, escape
from unit.images import SUFFIXES, read_image, resize_short_side, to_image, to_tensor, write_image
from unit.listing import files_below, list_images
from unit.translation.translator import Translator

log = logging.getLogger(__name__)

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_THREADS = min(4, os.cpu_count() or 1)
"""That read and write beside the network; each holds an image or two."""


@dataclass(frozen=True)
class Job:
    """One image to read and the files to write, one for each sample."""

    input: Path
    outputs: tuple[Path, ...]
    folder: Path | None = None
    """outside of which nothing may be written, wherever links lead; None: the outputs are what the user named"""


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
    """How to translate images."""

    source: Domain
    """the domain the images are from"""
    size: int | None = None
    """short side that the network works at; None: the image's own"""
    samples: int | None = None
    """so many outputs for each input, with noise in the code; None: one, without"""
    seed: int = 0
    """of that noise"""
    batch_size: int = 1
    """images of equal size that are translated together"""
    quality: int | None = None
    """of JPEG and WebP files"""
    overwrite: bool = False
    """write over existing outputs"""


def find_images(
    inputs: Sequence[str], out: Path | None = None
) -> tuple[list[tuple[Path, PurePosixPath]], list[Outcome]]:
    """(path, place below the output folder) of each image in files, folders (recursive) and patterns; and failures.

    A folder's images keep their place in it; where several folders are given, below the folder's name. What lies in
    `out`, where that is below a given folder, comes from an earlier call and is left out.
    """
    found: dict[str, tuple[Path, PurePosixPath]] = {}  # by full path: a file named twice is one
    failed: list[Outcome] = []
    several = len({os.path.realpath(text) for text in inputs if _is_folder(text)}) > 1
    for text in inputs:
        try:
            if _is_folder(text):
                top = PurePosixPath(Path(text).resolve().name if several else "")
                images = [(Path(text, name), top / name) for name in _images_below(text, out)]
            else:
                images = [(file, PurePosixPath(file.name)) for file in _files(text)]
        except DataError as error:
            failed.append(Outcome(text, "failed", reason=str(error)))
            continue
        for path, place in images:
            found.setdefault(os.path.abspath(path), (path, place))  # noqa: PTH100 - resolve() would follow links
    return list(found.values()), failed


def _is_folder(path: str | Path) -> bool:
    # Before Python 3.14, Path.is_dir raises for names that are too long
    return path != "" and os.path.isdir(path)  # noqa: PTH112


def _images_below(folder: str, out: Path | None) -> list[str]:
    names = list_images(Path(folder))
    top, made = os.path.realpath(folder), os.path.realpath(out or folder)
    if made == top or not Path(made).is_relative_to(top):
        return names
    inside = Path(made).relative_to(top).as_posix() + "/"
    names = [name for name in names if not name.startswith(inside)]
    if not names:
        raise DataError(f"{escape(folder)}: no images in this folder except in --out; give the folder that has them")
    return names


def _files(text: str) -> list[Path]:
    """The file of that name, or else the files that fit the pattern."""
    if os.path.lexists(text):
        return [Path(text)]
    files = [file for file in sorted(_fitting(text)) if not _is_folder(file)]
    if not files:
        raise DataError(f"{escape(text) or repr(text)}: no such file or folder, and no file fits it as a pattern")
    return files


def _fitting(pattern: str) -> Iterator[Path]:
    parts = Path(pattern).parts
    if "**" not in parts:  # Path.glob takes no absolute patterns
        yield from map(Path, glob.iglob(pattern))  # noqa: PTH207
        return
    # glob's own "**" follows links in circles, and never ends where there are two.
    first = parts.index("**")
    for top in filter(_is_folder, glob.iglob(str(Path(*parts[:first])))):  # noqa: PTH207
        yield from (Path(top, name) for name in files_below(Path(top)) if _fits(name.split("/"), parts[first:]))


def _fits(name: Sequence[str], pattern: Sequence[str]) -> bool:
    # "**" stands for any number of the name's parts, also none
    if not pattern:
        return not name
    if pattern[0] == "**":
        return any(_fits(name[k:], pattern[1:]) for k in range(len(name) + 1))
    return bool(name) and fnmatch.fnmatch(name[0], pattern[0]) and _fits(name[1:], pattern[1:])


def plan_jobs(
    images: Sequence[tuple[Path, PurePosixPath]], out: Path, ending: str | None, samples: int | None
) -> list[Job]:
    """What to write where: below `out`, or to `out` itself where it names a file and there is one image.

    Args:
        images: what `find_images` found.
        out: a folder, or a file for one image; then its own ending counts.
        ending: ".png", ".jpg" or ".webp"; None: the input's own.
        samples: outputs for each image, numbered from 1; None: one without a number.

    Raises:
        ConfigError: `out` names a file, but there are several images or samples, or is one that is no image; or two
            images have the same place.
    """
    if out.suffix.lower() in SUFFIXES and not _is_folder(out):
        if len(images) > 1 or samples is not None:
            raise ConfigError(f"--out {escape(out)}: one file can't take several images; give a folder")
        return [Job(path, (out,)) for path, _ in images]
    if os.path.lexists(out) and not _is_folder(out):
        raise ConfigError(f"--out {escape(out)}: is no folder; give one, or a file that ends in .png, .jpg or .webp")
    owners: dict[PurePosixPath, Path] = {}
    for path, place in images:
        if owners.setdefault(place, path) != path:
            raise ConfigError(
                f"{escape(owners[place])} and {escape(path)} would be written under one name; give the folder "
                "that holds both, or translate one after the other with another --out"
            )
    outputs = _tell_apart([place for _, place in images], ending, samples)
    return [
        Job(path, tuple(out / name for name in names), out) for (path, _), names in zip(images, outputs, strict=True)
    ]


def _tell_apart(places: Sequence[PurePosixPath], ending: str | None, samples: int | None) -> list[list[PurePosixPath]]:
    """The outputs for each place, no two of them alike, also where case makes no difference.

    x.png and x.jpg would both become x.png: only the one that is called so already does, the other x.jpg.png.
    """
    short = [_outputs(place.stem, place, ending, samples) for place in places]
    wanted = Counter(_key(name) for names in short for name in names)
    taken: set[str] = set()
    told_apart = []
    for place, names in zip(places, short, strict=True):
        if any(_key(name) in taken or (wanted[_key(name)] > 1 and _key(name) != _key(place)) for name in names):
            longer = (_outputs(f"{place.name}{f'-{k}' if k > 1 else ''}", place, ending, samples) for k in count(1))
            names = next(names for names in longer if not any(_key(n) in taken or _key(n) in wanted for n in names))
        taken.update(map(_key, names))
        told_apart.append(names)
    return told_apart


def _outputs(stem: str, place: PurePosixPath, ending: str | None, samples: int | None) -> list[PurePosixPath]:
    numbers = [""] if samples is None else [f"-{k + 1}" for k in range(samples)]
    return [place.with_name(f"{stem}{number}{ending or place.suffix}") for number in numbers]


def _key(name: PurePosixPath) -> str:
    """Equal for names that some systems take for one file."""
    return unicodedata.normalize("NFD", str(name).casefold())


@dataclass(frozen=True)
class _Ready:
    """An image that has been read."""

    job: Job
    image: Image.Image
    """at the size that the network works at"""
    size: tuple[int, int]
    """of the file's image"""


@dataclass(frozen=True)
class _Made:
    """What the network made of an image."""

    ready: _Ready
    number: int
    """of the sample, from 0"""
    out: Tensor


def translate_images(translator: Translator, jobs: Sequence[Job], settings: Settings) -> Iterator[Outcome]:
    """Translate one after another; what goes wrong with an image is its outcome, and the others are done.

    While the network works, a few threads read the next images and write the last ones.

    Warns of the first image that is over twice the size the model was trained at, where no size is set.
    """
    with ThreadPoolExecutor(_THREADS) as threads:
        read = partial(_read, size=settings.size)
        readings = _in_order(threads, read, _accepted(jobs, settings), max(settings.batch_size, _THREADS))
        made = _translated(translator, readings, settings)
        failed: dict[str, Outcome] = {}  # one of its samples
        for last, outcome in _in_order(threads, partial(_written, settings=settings), made, 2 * _THREADS):
            if outcome.status == "failed":
                failed[outcome.input] = outcome
            if last:
                yield failed.pop(outcome.input, outcome)


def _in_order(
    threads: ThreadPoolExecutor, work: Callable[[_Item], _Result], items: Iterable[_Item], ahead: int
) -> Iterator[_Result]:
    """`work` of each item, in their order; that of up to `ahead` more has begun by then."""
    begun: deque[Future[_Result]] = deque()
    for item in items:
        begun.append(threads.submit(work, item))
        if len(begun) > ahead:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()


def _accepted(jobs: Sequence[Job], settings: Settings) -> Iterator[Job | Outcome]:
    """Each job, or why it is not to be done."""
    inputs = {identity for job in jobs if (identity := _identity(job.input))}
    taken: set[str] = set()
    for job in jobs:
        yield _refusal(job, inputs, taken, settings.overwrite) or job


def _translated(
    translator: Translator, readings: Iterable[_Ready | Outcome], settings: Settings
) -> Iterator[_Made | Outcome]:
    """What the network makes of the images, those of equal size together; failures go before what waits."""
    usual, warned = translator.config.data.load_size, settings.size is not None
    waiting: list[_Ready] = []
    for ready in readings:
        if isinstance(ready, Outcome):
            yield ready
            continue
        if not warned and min(ready.size) > 2 * usual:
            warned = True
            log.warning(
                "%s: %dx%d, but the model was trained at %d, and knows things at no other scale; try --size %d",
                *(escape(ready.job.input), *ready.size, usual, usual),
            )
        if waiting and (ready.image.size != waiting[0].image.size or len(waiting) == settings.batch_size):
            yield from _translate_batch(translator, waiting, settings)
            waiting = []
        waiting.append(ready)
    if waiting:
        yield from _translate_batch(translator, waiting, settings)


def _refusal(job: Job, inputs: set[tuple[int, int]], taken: set[str], overwrite: bool) -> Outcome | None:
    for output in job.outputs:
        if _identity(output) in inputs:
            return Outcome(str(job.input), "failed", reason=f"{escape(output)} is an input; give another --out")
        if _is_folder(output):
            return Outcome(str(job.input), "failed", reason=f"{escape(output)} is a folder; give another --out")
        if job.folder and not _stays_in(job.folder, output):
            reason = f"{escape(output.parent)} is a link that leads out of --out; give another --out"
            return Outcome(str(job.input), "failed", reason=reason)
        if (place := os.path.join(os.path.realpath(output.parent), output.name)) in taken:  # noqa: PTH118 - a text
            reason = f"{escape(output)} is, through a link, another image's output too; give another --out"
            return Outcome(str(job.input), "failed", reason=reason)
        taken.add(place)
    if not overwrite and all(_identity(output) for output in job.outputs):
        return Outcome(str(job.input), "skipped", job.outputs, reason="exists already; --overwrite does it again")
    return None


def _stays_in(folder: Path, output: Path) -> bool:
    """A link in the output's own place is replaced, not followed: the folders on the way to it count."""
    return Path(os.path.realpath(output.parent)).is_relative_to(os.path.realpath(folder))


def _identity(path: Path) -> tuple[int, int] | None:
    """Equal for all names of one file; None: there is none."""
    try:
        status = Path(os.path.realpath(path)).stat()  # missing/../x.png is x.png as soon as missing has been made
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _read(job: Job | Outcome, size: int | None) -> _Ready | Outcome:
    if isinstance(job, Outcome):
        return job
    try:
        image = read_image(job.input)
    except UserError as error:
        return Outcome(str(job.input), "failed", reason=str(error))
    try:
        return _Ready(job, resize_short_side(image, size) if size else image, image.size)
    except UserError as error:
        return Outcome(str(job.input), "failed", reason=f"{escape(job.input)}: {error}")


def _translate_batch(translator: Translator, batch: Sequence[_Ready], settings: Settings) -> Iterator[_Made | Outcome]:
    """Images of one size."""
    seeds = [None] if settings.samples is None else [settings.seed + k for k in range(settings.samples)]
    width, height = batch[0].image.size
    try:
        translator.require_memory(len(batch), height, width)
        x = torch.stack([to_tensor(ready.image) for ready in batch])
        for number, seed in enumerate(seeds):
            out = translator.translate(x, settings.source, seed)
            yield from (_Made(ready, number, each) for ready, each in zip(batch, out, strict=True))
    except UserError as error:
        for ready in batch:
            job = ready.job
            yield Outcome(str(job.input), "failed", reason=f"{escape(job.input)}: {error}")


def _written(made: _Made | Outcome, settings: Settings) -> tuple[bool, Outcome]:
    """Write one output; whether it is its image's last, and what became of it."""
    if isinstance(made, Outcome):
        return True, made
    ready, job = made.ready, made.ready.job
    path, last = job.outputs[made.number], made.number == len(job.outputs) - 1
    try:
        _write(made.out, ready, path, settings)
    except UserError as error:
        return last, Outcome(str(job.input), "failed", reason=str(error))
    return last, Outcome(str(job.input), "done", job.outputs, ready.size)


def _write(out: Tensor, ready: _Ready, path: Path, settings: Settings) -> None:
    if not settings.overwrite and _identity(path):  # of some samples
        return
    try:
        image = to_image(out)
    except ValueError as error:
        raise ModelError(
            f"{escape(ready.job.input)}: the model makes no finite colours of it; try --precision fp32, or a model "
            "of an earlier step"
        ) from error
    if image.size != ready.size:
        image = image.resize(ready.size, Image.Resampling.LANCZOS)
    write_image(image, path, settings.quality)
