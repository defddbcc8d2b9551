"""Translating image files, while other threads read the next ones and write the last ones."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from PIL import Image
from torch import Tensor

from unit.domains import Domain
from unit.errors import UserError, escape
from unit.images import read_image, resize_short_side, to_image, to_tensor, write_image
from unit.translation.jobs import Job, Outcome, is_folder
from unit.translation.translator import Translator

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

_THREADS = min(4, os.cpu_count() or 1)
"""For reading and writing; each holds an image or two."""


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
    batch_size: int = 1
    """images of equal size to translate together"""
    quality: int | None = None
    """of JPEG and WebP files"""
    overwrite: bool = False
    """replace existing outputs"""


class _Input(NamedTuple):
    job: Job
    image: Image.Image
    """at the size that the network works at"""
    size: tuple[int, int]
    """of the image in the file"""


class _Output(NamedTuple):
    input: _Input
    sample: int
    tensor: Tensor


def translate_images(translator: Translator, jobs: Sequence[Job], settings: Settings) -> Iterator[Outcome]:
    """Translate images in order; what goes wrong with one is its outcome, and the others are done.

    Warns of the first image over twice the size that the model was trained at, unless a size is set.
    """
    with ThreadPoolExecutor(_THREADS) as threads:
        ahead = max(settings.batch_size, _THREADS)
        inputs = _map_ahead(threads, partial(_read, size=settings.size), _checked(jobs, settings), ahead)
        outputs = _translate(translator, inputs, settings)
        failed: dict[str, Outcome] = {}  # images of which a sample failed
        for last, outcome in _map_ahead(threads, partial(_write, settings=settings), outputs, 2 * _THREADS):
            if outcome.status == "failed":
                failed[outcome.input] = outcome
            if last:
                yield failed.pop(outcome.input, outcome)


def _map_ahead(threads: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R]:
    """Map in order, with up to `ahead` further items already submitted; unlike `Executor.map`, not all of them."""
    submitted: deque[Future[R]] = deque()
    for item in items:
        submitted.append(threads.submit(function, item))
        if len(submitted) > ahead:
            yield submitted.popleft().result()
    while submitted:
        yield submitted.popleft().result()


def _checked(jobs: Sequence[Job], settings: Settings) -> Iterator[Job | Outcome]:
    """Yield each job, or why it is skipped or refused."""
    inputs = {identity for job in jobs if (identity := _identity(job.input))}
    taken: set[str] = set()
    for job in jobs:
        if reason := _refusal(job, inputs, taken):
            yield Outcome(str(job.input), "failed", reason=f"{reason}; give another --out")
        elif not settings.overwrite and all(_identity(output) for output in job.outputs):
            yield Outcome(str(job.input), "skipped", job.outputs, reason="exists already; --overwrite replaces it")
        else:
            yield job


def _refusal(job: Job, inputs: set[tuple[int, int]], taken: set[str]) -> str | None:
    """Say why the outputs may not be written; otherwise add them to `taken`."""
    for output in job.outputs:
        folder = os.path.realpath(output.parent)  # a link at the output's own path is replaced, not followed
        if _identity(output) in inputs:
            return f"{escape(output)} is an input"
        if is_folder(output):
            return f"{escape(output)} is a folder"
        if job.folder and not Path(folder).is_relative_to(os.path.realpath(job.folder)):
            return f"{escape(output.parent)} is a link that leads out of --out"
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


def _read(job: Job | Outcome, size: int | None) -> _Input | Outcome:
    if isinstance(job, Outcome):
        return job
    try:
        image = read_image(job.input)
    except UserError as error:
        return Outcome(str(job.input), "failed", reason=str(error))
    try:
        return _Input(job, resize_short_side(image, size) if size else image, image.size)
    except UserError as error:
        return Outcome(str(job.input), "failed", reason=f"{escape(job.input)}: {error}")


def _translate(
    translator: Translator, inputs: Iterable[_Input | Outcome], settings: Settings
) -> Iterator[_Output | Outcome]:
    """Translate batches of consecutive images of equal size."""
    trained, warned = translator.config.data.load_size, settings.size is not None
    for _, group in groupby(inputs, key=lambda item: None if isinstance(item, Outcome) else item.image.size):
        while items := list(islice(group, settings.batch_size)):
            yield from (item for item in items if isinstance(item, Outcome))
            batch = [item for item in items if isinstance(item, _Input)]
            if batch and not warned and min(batch[0].size) > 2 * trained:
                warned = True
                log.warning(
                    "%s: %dx%d, but the model was trained at %d, and knows no other scale; try --size %d",
                    *(escape(batch[0].job.input), *batch[0].size, trained, trained),
                )
            if batch:
                yield from _translate_batch(translator, batch, settings)


def _translate_batch(
    translator: Translator, batch: Sequence[_Input], settings: Settings
) -> Iterator[_Output | Outcome]:
    seeds = [None] if settings.samples is None else [settings.seed + k for k in range(settings.samples)]
    width, height = batch[0].image.size
    try:
        translator.require_memory(len(batch), height, width)
        x = torch.stack([to_tensor(item.image) for item in batch])
        for sample, seed in enumerate(seeds):
            out = translator.translate(x, settings.source, seed)
            yield from (_Output(item, sample, tensor) for item, tensor in zip(batch, out, strict=True))
    except UserError as error:
        for item in batch:
            yield Outcome(str(item.job.input), "failed", reason=f"{escape(item.job.input)}: {error}")


def _write(output: _Output | Outcome, settings: Settings) -> tuple[bool, Outcome]:
    """Write one sample, at its input's size; return whether it is its image's last, and the outcome."""
    if isinstance(output, Outcome):
        return True, output
    job, size = output.input.job, output.input.size
    path, outcome = job.outputs[output.sample], Outcome(str(job.input), "done", job.outputs, size)
    try:
        if settings.overwrite or not _identity(path):
            image = to_image(output.tensor)
            write_image(image.resize(size, Image.Resampling.LANCZOS), path, settings.quality)
    except UserError as error:
        outcome = Outcome(str(job.input), "failed", reason=str(error))
    except ValueError:
        reason = "the model's output contains NaN or Inf; try --precision fp32, or a model of an earlier step"
        outcome = Outcome(str(job.input), "failed", reason=f"{escape(job.input)}: {reason}")
    return output.sample == len(job.outputs) - 1, outcome
