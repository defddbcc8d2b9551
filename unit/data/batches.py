"""Batches for training: order and augmentation are functions of (seed, domain, place in the global sequence).

Position p of a domain is image p mod n of epoch p // n, in an order of that epoch's own. Nothing depends on what was
drawn before, so training goes on at any step, and any batch can be made again.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from unit.config import DataConfig
from unit.data.bad_images import BadImages
from unit.data.cache import cached
from unit.data.permutation import permute_index
from unit.data.shards import Shards
from unit.domains import Domain, PerDomain
from unit.errors import ImageError, UserError
from unit.image_source import ImageSource, resized
from unit.images import to_tensor
from unit.seeds import seed_for

_ATTEMPTS = 20
"""Images to try for one place; of a folder with a hundredth bad, so many never are."""
_LONGEST_WAIT = 300
"""Seconds for a batch."""
_FAILURES = {
    "shared memory": "had too little shared memory; enlarge it (docker run --shm-size 8g), or set data.workers to 0",
    "killed by signal": "died, perhaps for want of memory; lower data.workers",
    "exited unexpectedly": "died, perhaps for want of memory; lower data.workers",
    "DataLoader timed out": "gave nothing for 5 minutes; look at the disk",
}
"""Words of torch's in the error, and what to say."""
_GRACE = 20
"""Seconds that a loader process lives on after SIGTERM."""


def order_of(source: ImageSource) -> Callable[[int, int], int]:
    """Where (place, key) leads: all images mixed, or those of a few shards at a time."""
    return source.order.permute_index if isinstance(source, Shards) else partial(_anywhere, len(source))


def _anywhere(count: int, place: int, key: int) -> int:
    return permute_index(place, count, key)


def random_crop(image: Image.Image, size: int, flip: bool, seed: int) -> Image.Image:
    """A square of `size` from a random place of the image, mirrored half of the time if `flip`."""
    random = np.random.default_rng(seed)
    left = int(random.integers(image.width - size + 1))
    top = int(random.integers(image.height - size + 1))
    image = image.crop((left, top, left + size, top + size))
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 and flip else image


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """The middle square of `size`."""
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


@dataclass(frozen=True)
class Item:
    """One image of each domain, and what could not be read on the way to them."""

    images: PerDomain[Tensor]
    """(3, crop, crop) in [-1, 1]; of a batch (B, 3, crop, crop)"""
    bad: list[tuple[Domain, str, ImageError]]
    """domain, name, and why"""

    def pin_memory(self) -> Item:
        """DataLoader asks for this where the device is CUDA."""
        return Item(self.images.map(Tensor.pin_memory), self.bad)


class TrainingImages(Dataset[Item | ImageError]):
    """Item p: the p-th training image of each domain.

    An image that can't be read makes its item the error: raised in a loader process, it would come with a traceback.
    Where `data.on_bad_image` is "skip", another of the domain takes its place, always the same one. `data.cache` keeps
    images from here on; raises `ConfigError` where that can't be.
    """

    def __init__(self, sources: PerDomain[ImageSource], config: DataConfig, seed: int) -> None:
        self.sources = sources.map(lambda source: cached(source, config))
        self._orders = sources.map(order_of)
        self.config, self.seed = config, seed

    def index(self, domain: Domain, position: int, attempt: int = 0) -> int:
        """Which image of the domain stands at `position` of the endless sequence, when `attempt` others were bad."""
        count = len(self.sources[domain])
        if attempt:
            return seed_for(self.seed, "replacement", domain, position, attempt) % count
        epoch, place = divmod(position, count)
        return self._orders[domain](place, seed_for(self.seed, "order", domain, epoch))

    def __getitem__(self, position: int) -> Item | ImageError:
        bad: list[tuple[Domain, str, ImageError]] = []
        try:
            return Item(PerDomain.of(lambda domain: self._image(domain, position, bad)), bad)
        except ImageError as error:
            return error

    def _image(self, domain: Domain, position: int, bad: list[tuple[Domain, str, ImageError]]) -> Tensor:
        attempts = _ATTEMPTS if self.config.on_bad_image == "skip" else 1
        for attempt in range(attempts):
            index = self.index(domain, position, attempt)
            try:
                image = resized(self.sources[domain], index, self.config.load_size)
                break
            except ImageError as error:
                bad.append((domain, self.sources[domain].name(index), error))
        else:
            raise bad[-1][2]
        seed = seed_for(self.seed, "augmentation", domain, position)
        return to_tensor(random_crop(image, self.config.crop_size, self.config.flip, seed))


def training_batches(
    images: TrainingImages, bad: BadImages, places: Iterable[Sequence[int]], workers: int, device: torch.device
) -> Generator[PerDomain[Tensor]]:
    """A batch (B, 3, crop, crop) of each domain, on `device`, of the B positions in each item of `places`.

    Raises:
        ImageError: an image of the batch can't be read.
        DataError: too many were skipped; those that were are in `bad`.
        UserError: a loader process died or hangs.
    """
    loader = DataLoader(
        images,
        batch_sampler=places,  # type: ignore[arg-type]  # a range is as good as a list
        num_workers=workers,
        timeout=_LONGEST_WAIT if workers else 0,
        pin_memory=device.type == "cuda",
        collate_fn=_collate,
        worker_init_fn=_leave_signals_to_the_main_process,
    )
    batches = iter(loader)
    try:
        while item := _next(batches):
            if isinstance(item, ImageError):
                raise item
            for domain, name, why in item.bad:
                bad.note(domain, name, why)
            yield item.images.map(lambda images: images.to(device, non_blocking=True))
    finally:
        del batches  # ends the loader processes now, whoever still holds this frame


def _next(batches: Iterator[Item | ImageError]) -> Item | ImageError | None:
    """The next item, or None at the end; raises `UserError` when a loader process failed."""
    failure = None
    try:
        return next(batches, None)
    except RuntimeError as error:
        failure = loader_failure(error)
        if failure is None:
            raise
    raise failure  # not from the error, whose traceback would hold the loader and its processes


def loader_failure(error: RuntimeError) -> UserError | None:
    """What to say when a loader process died or hangs; None for any other error.

    The news of a death reaches the main process as a signal, so the error may come up at any place.
    """
    for words, what in _FAILURES.items():
        if words in str(error):
            return UserError(f"a process that reads images {what}. The last checkpoint is good: the run can go on")
    return None


def _collate(items: list[Item | ImageError]) -> Item | ImageError:
    """A batch for each domain, or the first error among the items."""
    good: list[Item] = []
    for item in items:
        if isinstance(item, ImageError):
            return item
        good.append(item)
    images: PerDomain[Tensor] = PerDomain.of(lambda i: default_collate([item.images[i] for item in good]))
    return Item(images, [bad for item in good for bad in item.bad])


def _leave_signals_to_the_main_process(_: int) -> None:
    """Ctrl-C, and SIGTERM to the whole group, also reach the loaders, which are needed until the step is finished."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if hasattr(signal, "alarm"):  # SIGTERM is also how the main process ends a loader that doesn't end by itself
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE))
        signal.signal(signal.SIGALRM, lambda *_: os._exit(0))  # which is no failure to the main process


def held_out_image(source: ImageSource, index: int, config: DataConfig) -> Tensor:
    """A held-out image as the networks see it: resized, its middle cut out, (3, crop, crop) in [-1, 1]."""
    return to_tensor(center_crop(resized(source, index, config.load_size), config.crop_size))
