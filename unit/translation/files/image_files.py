"""Translating image files, while other threads read the next ones and write the last ones."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby, islice
from typing import NamedTuple, TypeVar

from PIL import Image
from torch import Tensor

from unit.devices import out_of_memory
from unit.domains import Domain
from unit.errors import UserError, escape, format_bytes
from unit.images import DecodedImage, has_gray_colors, read_extent, read_image_file, write_image_file
from unit.images.deep import Levels
from unit.machine import available_memory, core_count
from unit.translation.files.jobs import Job, Outcome
from unit.translation.files.outputs import identity_of, reason_not_to_write
from unit.translation.files.shares import ALL, Share
from unit.translation.frames import SizeWarning, finish, scale, suited, to_file_size, translate_scaled
from unit.translation.provenance.content_credentials import Signer
from unit.translation.provenance.marking import Marker
from unit.translation.translator import Translator

__all__ = ["NOT_FINITE", "SMALLER", "Settings", "to_file_size", "translate_images"]

T = TypeVar("T")
NOT_FINITE = "the model's output contains NaN or Inf; try --precision fp32, or a model of an earlier step"
SMALLER = "--size N works at a smaller short side of N pixels, and blurs"
_THREADS = min(4, core_count())
"""For reading and writing; each holds an image or two."""
_BYTES_PER_PIXEL, _BYTES_PER_DEEP_PIXEL, _BYTES_PER_FRAME_PIXEL, _BYTES_PER_NETWORK_PIXEL = 25, 60, 32, 48
"""Peak memory of reading and writing a pixel, of 8 or 16 bits a channel; of each frame of an animation besides; and of
the tensors at the size that the network works at."""


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
    """of JPEG, WebP and AVIF files"""
    overwrite: bool = False
    """replace existing outputs"""
    provenance: bool = True
    """say in outputs that they were translated"""
    signer: Signer | None = None
    """signs outputs; None: they are not signed"""
    keep_gray: bool = False
    """write gray images' translations in gray"""


class _BatchKey(NamedTuple):
    size: tuple[int, int]
    """width and height that the network works at"""
    deep: bool
    animation: str | None
    """its file; None: a still image"""


@dataclass
class _Item:
    """An image in progress."""

    job: Job
    outcome: Outcome
    image: DecodedImage | None = None
    """None: not translated, for the outcome's reason"""
    scaled: list[Image.Image | Levels] = field(default_factory=list)
    """its frames at the size that the network works at"""
    lost: set[str] = field(default_factory=set)
    """names of what the outputs don't keep"""

    @property
    def batch_key(self) -> _BatchKey | None:
        """Equal for images that can be translated together; None: nothing to translate."""
        if self.image is None:
            return None
        first = self.scaled[0]
        size = first.size if isinstance(first, Image.Image) else (first.shape[1], first.shape[0])
        return _BatchKey(size, self.image.deep, str(self.job.input) if len(self.scaled) > 1 else None)

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
    tensors: Sequence[Tensor]
    """of each frame, (3, H, W) in [-1, 1]; empty: the item has no samples, or no more"""


def translate_images(
    translator: Translator,
    jobs: Sequence[Job],
    settings: Settings,
    share: Share = ALL,
    size_warning: SizeWarning | None = None,
) -> Iterator[Outcome]:
    """Translate this process's share of images, in order.

    An image that fails has an outcome that says why, and the others are done.
    Images so large that those in progress might not fit into memory together are read, translated and written one by
    one.

    Args:
        translator: the model.
        jobs: what to read and to write.
        settings: how to translate.
        share: which of the jobs are this process's.
        size_warning: of several calls that are to warn once together; None: of this one alone.
    """
    memory = available_memory()
    max_pixels = translator.config.data.max_pixels
    read = partial(_read, size=settings.size, max_pixels=max_pixels)
    write = partial(_write, settings=settings, marker=marker_of(translator, settings))
    size_warning = size_warning or SizeWarning(translator, settings.source, settings.size)
    with ThreadPoolExecutor(_THREADS) as threads:
        is_large = partial(_is_large, translator=translator, settings=settings, memory=memory)
        items_of_share = islice(_check(jobs, settings), share.rank, None, share.count)
        for large, group in groupby(items_of_share, is_large):
            for part in ([item] for item in group) if large else [group]:
                items = _map_ahead(threads, read, part, max(settings.batch_size, _THREADS))
                samples = _translate(translator, items, settings, memory, size_warning)
                for sample in _map_ahead(threads, write, samples, 2 * _THREADS):
                    if not sample.tensors or sample.number == len(sample.item.job.outputs) - 1:
                        yield replace(sample.item.outcome, lost=tuple(sorted(sample.item.lost)))


def marker_of(translator: Translator, settings: Settings) -> Marker:
    """Return what marks the outputs."""
    made_by = translator.provenance(settings.source, settings.samples is not None) if settings.provenance else None
    return Marker(made_by, settings.signer)


def _is_large(item: _Item, translator: Translator, settings: Settings, memory: int) -> bool:
    """True if as many such images as may be in progress at once, one batch of them in the network, need much memory."""
    try:
        extent = read_extent(item.job.input) if item.outcome.status == "done" else None
    except UserError:  # reading it will say why
        extent = None
    if extent is None:
        return False
    pixels = extent.width * extent.height
    network_pixels = pixels
    if settings.size:
        network_pixels = pixels * settings.size**2 // min(extent.width, extent.height) ** 2
    per_pixel = _BYTES_PER_DEEP_PIXEL if extent.deep else _BYTES_PER_PIXEL
    if extent.frames > 1:
        per_pixel += extent.frames * _BYTES_PER_FRAME_PIXEL
    in_progress = settings.batch_size + max(settings.batch_size, _THREADS) + 2 * _THREADS
    needed = in_progress * (pixels * per_pixel + network_pixels * extent.frames * _BYTES_PER_NETWORK_PIXEL)
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
    inputs = {identity for job in jobs if (identity := identity_of(job.input))}
    folders = {os.path.realpath(folder) for folder in {job.input.parent for job in jobs}}
    taken: set[str] = set()
    for job in jobs:
        item = _Item(job, Outcome(str(job.input), "done", job.outputs))
        if reason := reason_not_to_write(job, inputs, folders, taken, marked=settings.provenance):
            item.fail(f"{reason}; give another --out")
        elif not settings.overwrite and all(identity_of(output) for output in job.outputs):
            if job.doubt:
                reason = f"was written before {escape(job.input)} was there, probably for {escape(job.doubt)}"
                item.fail(f"{escape(job.outputs[0])}: {reason}; --overwrite replaces it")
                yield item
                continue
            item.outcome = replace(item.outcome, status="skipped", reason="exists already; --overwrite replaces it")
        yield item


def _read(item: _Item, size: int | None, max_pixels: int) -> _Item:
    if item.outcome.status != "done":
        return item
    try:
        image = read_image_file(item.job.input, max_pixels)
    except UserError as error:
        return item.fail(error)
    item.outcome = replace(item.outcome, size=image.size)
    item.lost.update(image.lost)
    try:
        with item.memory_errors():
            item.scaled = [scale(frame, size) for frame in image.frames]
            item.image = image
    except UserError as error:
        item.fail(f"{escape(item.job.input)}: {error}")
    return item


def _translate(
    translator: Translator, items: Iterable[_Item], settings: Settings, memory: int, size_warning: SizeWarning
) -> Iterator[_Sample]:
    """Translate batches of consecutive images of equal size, smaller ones where the memory is; warn once."""
    for key, group in groupby(items, key=lambda item: item.batch_key):
        if key is None:
            yield from (_Sample(item, 0, ()) for item in group)
            continue
        width, height = key.size
        fitting = max(1, min(settings.batch_size, memory // 2 // translator.bytes_needed(width * height)))
        while batch := list(islice(group, fitting)):
            size_warning.check(str(batch[0].job.input), key.size)
            yield from _translate_batch(suited(translator, key.deep), batch, key.size, settings, fitting)


def _translate_batch(
    translator: Translator, batch: Sequence[_Item], size: tuple[int, int], settings: Settings, batch_size: int
) -> Iterator[_Sample]:
    """Translate still images together, or all frames of one animation."""
    seeds = [None] if settings.samples is None else [settings.seed + k for k in range(settings.samples)]
    scaled = [frame for item in batch for frame in item.scaled]
    try:
        translator.require_memory(min(batch_size, len(scaled)), size[1], size[0])
        for number, seed in enumerate(seeds):
            out = list(translate_scaled(translator, scaled, settings.source, batch_size, seed, settings.strength))
            yield from (_Sample(item, number, out if len(batch) == 1 else [out[k]]) for k, item in enumerate(batch))
    except (UserError, MemoryError, RuntimeError) as error:
        if not isinstance(error, UserError) and not out_of_memory(error):
            raise
        reason = f"{error if isinstance(error, UserError) else 'out of memory'}; {SMALLER}"
        yield from (_Sample(item.fail(f"{escape(item.job.input)}: {reason}"), 0, ()) for item in batch)


def _write(sample: _Sample, settings: Settings, marker: Marker) -> _Sample:
    """Write the sample, at the size of its image's file."""
    item, number, tensors = sample
    path = item.job.outputs[number]
    if not tensors or item.image is None or (identity_of(path) and not settings.overwrite):
        return sample
    try:
        with item.memory_errors():
            image = replace(item.image, frames=tuple(map(finish, tensors, item.image.frames)))
            gray = settings.keep_gray and has_gray_colors(item.image)
            item.lost.update(
                write_image_file(image, path, settings.quality, gray=gray, mark=marker.mark(item.job.input))
            )
    except UserError as error:
        item.fail(error)
    except ValueError:
        item.fail(f"{escape(item.job.input)}: {NOT_FINITE}")
    return sample
