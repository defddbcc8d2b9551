"""Translating image files, while other threads read the next ones and write the last ones."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from PIL import Image
from torch import Tensor

from unit.devices import out_of_memory
from unit.domains import Domain
from unit.errors import UserError, escape, format_bytes
from unit.images import can_mark, read_header, read_image, resize_short_side, to_image, to_tensor, write_image
from unit.machine import available_memory, core_count
from unit.translation.jobs import Job, Outcome, is_folder
from unit.translation.provenance import Provenance
from unit.translation.translator import Translator

log = logging.getLogger(__name__)
T = TypeVar("T")
SMALLER = "--size N works at a smaller short side of N pixels, and blurs"
_THREADS = min(4, core_count())
"""For reading and writing; each holds an image or two."""


_BYTES_PER_PIXEL, _BYTES_PER_NETWORK_PIXEL = 25, 48
"""Peak memory of reading and writing a pixel, and of its tensors at the size that the network works at."""


@dataclass(frozen=True)
class Settings:
    """How to translate images."""

    source: Domain
    """the domain of the images"""
    size: int | None = None
    """short side that the network works at; None: the image's own"""
    samples: int | None = None
    """outputs per image, with noise in the code; None: one, without noise"""
    seed: int = 0
    """of the first sample's noise"""
    strength: float = 1.0
    """from 0, the reconstruction, to 1, the translation"""
    batch_size: int = 1
    """images of equal size to translate together"""
    quality: int | None = None
    """of JPEG and WebP files"""
    overwrite: bool = False
    """replace existing outputs"""


@dataclass
class _Item:
    """An image in progress."""

    job: Job
    outcome: Outcome
    image: Image.Image | None = None
    """at the size that the network works at; None: not translated, for the outcome's reason"""
    size: tuple[int, int] = (0, 0)
    """of the image in the file"""

    def fail(self, reason: object) -> _Item:
        self.outcome = Outcome(str(self.job.input), "failed", reason=str(reason))
        return self

    @contextmanager
    def memory_errors(self) -> Iterator[None]:
        """Let the others go on if there is too little memory for this one."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            reason = f"out of memory, of which {format_bytes(available_memory())} are free; {SMALLER}"
            self.fail(f"{escape(self.job.input)}: {reason}")


class _Sample(NamedTuple):
    item: _Item
    number: int
    tensor: Tensor | None
    """(3, H, W) in [-1, 1]; None: the item has no samples, or no more"""


def translate_images(translator: Translator, jobs: Sequence[Job], settings: Settings) -> Iterator[Outcome]:
    """Translate images in order; an image that fails has an outcome that says why, and the others are done.

    Images so large that those in progress might not fit into memory together are read, translated and written one by
    one. Warns about the first image over twice the size that the model was trained at, unless a size is set.
    """
    memory = available_memory()
    max_pixels = translator.config.data.max_pixels
    read = partial(_read, size=settings.size, max_pixels=max_pixels)
    write = partial(
        _write, settings=settings, provenance=translator.provenance(settings.source, settings.samples is not None)
    )
    trained = [translator.config.data.load_size] if settings.size is None else []
    with ThreadPoolExecutor(_THREADS) as threads:
        is_large = partial(_is_large, translator=translator, settings=settings, memory=memory)
        for large, group in groupby(_check(jobs, settings), is_large):
            for part in ([item] for item in group) if large else [group]:
                items = _map_ahead(threads, read, part, max(settings.batch_size, _THREADS))
                samples = _translate(translator, items, settings, memory, trained)
                for sample in _map_ahead(threads, write, samples, 2 * _THREADS):
                    if sample.tensor is None or sample.number == len(sample.item.job.outputs) - 1:
                        yield sample.item.outcome


def _is_large(item: _Item, translator: Translator, settings: Settings, memory: int) -> bool:
    """True if as many such images as may be in progress at once, one batch of them in the network, need much memory."""
    try:
        header = read_header(item.job.input) if item.outcome.status == "done" else None
    except UserError:  # reading it will say why
        header = None
    if header is None:
        return False
    pixels = header.width * header.height
    network_pixels = pixels
    if settings.size:
        network_pixels = pixels * settings.size**2 // min(header.width, header.height) ** 2
    in_progress = settings.batch_size + max(settings.batch_size, _THREADS) + 2 * _THREADS
    needed = in_progress * (pixels * _BYTES_PER_PIXEL + network_pixels * _BYTES_PER_NETWORK_PIXEL)
    return needed + translator.bytes_needed(network_pixels) > memory / 2


def _map_ahead(threads: ThreadPoolExecutor, function: Callable[[T], T], items: Iterable[T], ahead: int) -> Iterator[T]:
    """Map in order, with up to `ahead` further items already submitted; unlike `Executor.map`, not all of them."""
    submitted: deque[Future[T]] = deque()
    for item in items:
        submitted.append(threads.submit(function, item))
        if len(submitted) > ahead:
            yield submitted.popleft().result()
    while submitted:
        yield submitted.popleft().result()


def _check(jobs: Sequence[Job], settings: Settings) -> Iterator[_Item]:
    """Yield an item for each job, failed or skipped if its outputs can't or needn't be written."""
    inputs = {identity for job in jobs if (identity := _identity(job.input))}
    folders = {os.path.realpath(folder) for folder in {job.input.parent for job in jobs}}
    taken: set[str] = set()
    for job in jobs:
        item = _Item(job, Outcome(str(job.input), "done", job.outputs))
        if reason := _reason_not_to_write(job, inputs, folders, taken):
            item.fail(f"{reason}; give another --out")
        elif not settings.overwrite and all(_identity(output) for output in job.outputs):
            item.outcome = replace(item.outcome, status="skipped", reason="exists already; --overwrite replaces it")
        yield item


def _reason_not_to_write(job: Job, inputs: set[tuple[int, int]], folders: set[str], taken: set[str]) -> str | None:
    """Say why the outputs may not be written; otherwise add them to `taken`."""
    for output in job.outputs:
        folder = os.path.realpath(output.parent)  # a link at the output's own path is replaced, not followed
        if _identity(output) in inputs:
            return f"{escape(output)} is an input"
        if is_folder(output):
            return f"{escape(output)} is a folder"
        if job.folder and not Path(folder).is_relative_to(os.path.realpath(job.folder)):
            return f"{escape(output.parent)} is a link that leads out of --out"
        if job.folder and folder in folders and not can_mark(output):
            return f"{escape(output)} could not be told from an input, as {escape(output.suffix)} files hold no mark"
        if f"{folder}/{output.name}" in taken:
            return f"{escape(output)} is, through a link, another image's output too"
        taken.add(f"{folder}/{output.name}")
    return None


def _identity(path: Path) -> tuple[int, int] | None:
    """Identify a file, however its path is written; None if there is none."""
    try:
        status = Path(os.path.realpath(path)).stat()  # missing/../x.png is x.png as soon as missing has been made
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _read(item: _Item, size: int | None, max_pixels: int) -> _Item:
    if item.outcome.status != "done":
        return item
    try:
        image = read_image(item.job.input, max_pixels)
    except UserError as error:
        return item.fail(error)
    item.size, item.outcome = image.size, replace(item.outcome, size=image.size)
    try:
        with item.memory_errors():
            item.image = resize_short_side(image, size) if size else image
    except UserError as error:
        item.fail(f"{escape(item.job.input)}: {error}")
    return item


def _translate(
    translator: Translator, items: Iterable[_Item], settings: Settings, memory: int, trained: list[int]
) -> Iterator[_Sample]:
    """Translate batches of consecutive images of equal size, smaller ones where the memory is; warn once."""
    for size, group in groupby(items, key=lambda item: item.image.size if item.image else None):
        fitting = memory // 2 // translator.bytes_needed(size[0] * size[1]) if size else settings.batch_size
        while batch := list(islice(group, max(1, min(settings.batch_size, fitting)))):
            if size is None:
                yield from (_Sample(item, 0, None) for item in batch)
                continue
            if trained and min(size) > 2 * trained[0]:
                log.warning(
                    "%s: %dx%d, but the model was trained at a short side of %d: such images stay sharp, but large "
                    "structures change less than near that size",
                    *(escape(batch[0].job.input), *size, trained.pop()),
                )
            yield from _translate_batch(translator, batch, size, settings)


def _translate_batch(
    translator: Translator, batch: Sequence[_Item], size: tuple[int, int], settings: Settings
) -> Iterator[_Sample]:
    seeds = [None] if settings.samples is None else [settings.seed + k for k in range(settings.samples)]
    try:
        translator.require_memory(len(batch), size[1], size[0])
        x = torch.stack([to_tensor(item.image) for item in batch if item.image])
        for number, seed in enumerate(seeds):
            out = translator.translate(x, settings.source, seed, strength=settings.strength)
            yield from (_Sample(item, number, tensor) for item, tensor in zip(batch, out, strict=True))
    except (UserError, MemoryError, RuntimeError) as error:
        if not isinstance(error, UserError) and not out_of_memory(error):
            raise
        reason = f"{error if isinstance(error, UserError) else 'out of memory'}; {SMALLER}"
        yield from (_Sample(item.fail(f"{escape(item.job.input)}: {reason}"), 0, None) for item in batch)


def _write(sample: _Sample, settings: Settings, provenance: Provenance) -> _Sample:
    """Write the sample, at the size of its image's file."""
    item, number, tensor = sample
    path = item.job.outputs[number]
    if tensor is None or (_identity(path) and not settings.overwrite):
        return sample
    try:
        with item.memory_errors():
            write_image(to_file_size(tensor, item.size), path, settings.quality, provenance)
    except UserError as error:
        item.fail(error)
    except ValueError:
        reason = "the model's output contains NaN or Inf; try --precision fp32, or a model of an earlier step"
        item.fail(f"{escape(item.job.input)}: {reason}")
    return sample


def to_file_size(tensor: Tensor, size: tuple[int, int]) -> Image.Image:
    """Convert (3, H, W) in [-1, 1] to an image of the size (width, height) of the input's file."""
    return to_image(tensor).resize(size, Image.Resampling.LANCZOS)
