"""Batches for training: order and augmentation are functions of (seed, domain, place in the global sequence).

Position p of a domain is image p mod n of epoch p // n, in an order of that epoch's own. Nothing depends on what was
drawn before, so training goes on at any step, and any batch can be made again.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from unit.config import DataConfig
from unit.data.source import ImageSource
from unit.domains import Domain, PerDomain
from unit.errors import ImageError, printable
from unit.images import resize_short_side, to_tensor
from unit.seeds import seed_for


def permuted(index: int, count: int, key: int) -> int:
    """Where `index` of range(count) goes in the permutation of that range that `key` names, without a list of it.

    A four-round Feistel network on the next even number of bits, walked along its cycle until it lands in the range
    (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002).
    """
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for round_number in range(4):
            left, right = right, left ^ (_mix(right, key, round_number) & mask)
        index = left << half | right
        if index < count:
            return index


def _mix(value: int, key: int, round_number: int) -> int:
    """64 well-mixed bits (the finalizer of splitmix64)."""
    value = (value ^ key ^ (round_number + 1) * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    value = (value ^ value >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return value ^ value >> 31


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


def resized(source: ImageSource, index: int, size: int) -> Image.Image:
    """The picture with its short side scaled to `size`; raises `ImageError` with its name."""
    image = source.image(index)
    try:
        return resize_short_side(image, size)
    except ImageError as error:
        raise ImageError(f"{printable(source.name(index))}: {error}") from error


Item = dict[str, Tensor] | ImageError


class TrainingImages(Dataset[Item]):
    """Item p: the p-th training image of each domain, (3, crop, crop) in [-1, 1], keyed "a" and "b".

    An image that can't be read makes its item the error: raised in a loader process, it would come with a traceback.
    """

    def __init__(self, sources: PerDomain[ImageSource], config: DataConfig, seed: int) -> None:
        self.sources, self.config, self.seed = sources, config, seed

    def index(self, domain: Domain, position: int) -> int:
        """Which image of the domain stands at `position` of the endless sequence."""
        count = len(self.sources[domain])
        epoch, place = divmod(position, count)
        return permuted(place, count, seed_for(self.seed, "order", domain, epoch))

    def __getitem__(self, position: int) -> Item:
        try:
            return {domain.value: self._image(domain, position) for domain in Domain}
        except ImageError as error:
            return error

    def _image(self, domain: Domain, position: int) -> Tensor:
        image = resized(self.sources[domain], self.index(domain, position), self.config.load_size)
        seed = seed_for(self.seed, "augmentation", domain, position)
        return to_tensor(random_crop(image, self.config.crop_size, self.config.flip, seed))


def training_batches(
    images: TrainingImages, batch_size: int, steps: range, workers: int, device: torch.device
) -> Iterator[PerDomain[Tensor]]:
    """One batch for each of `steps`: (batch_size, 3, crop, crop) of each domain, on `device`.

    Raises:
        ImageError: a picture of the batch can't be read.
    """
    loader = DataLoader(
        images,
        batch_size=batch_size,
        sampler=range(steps.start * batch_size, steps.stop * batch_size),
        num_workers=workers,
        pin_memory=device.type == "cuda",
        collate_fn=_collate,
        worker_init_fn=_leave_signals_to_the_main_process,
    )
    for batch in loader:
        if isinstance(batch, ImageError):
            raise batch
        a, b = (batch[domain.value].to(device, non_blocking=True) for domain in Domain)
        yield PerDomain(a, b)


def _collate(items: list[Item]) -> Any:
    """A batch for each domain, or the first error among the items."""
    return next((item for item in items if isinstance(item, ImageError)), None) or default_collate(items)


def _leave_signals_to_the_main_process(_: int) -> None:
    """Ctrl-C, and SIGTERM to the whole group, also reach the loaders, which are needed until the step is finished."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def held_out_image(source: ImageSource, index: int, config: DataConfig) -> Tensor:
    """A held-out image as the networks see it: resized, its middle cut out, (3, crop, crop) in [-1, 1]."""
    return to_tensor(center_crop(resized(source, index, config.load_size), config.crop_size))
