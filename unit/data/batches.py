"""Training batches: order and augmentation are functions of (seed, domain, index in the global sample sequence).

Sample k of a domain is image order[k mod n] of epoch k // n, where each epoch has an order of its own. Nothing depends
on earlier samples, so training resumes at any step, and any batch can be reproduced.
"""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from unit.config import DataConfig
from unit.data.bad_images import BadImages
from unit.domains import Domain, PerDomain
from unit.errors import ImageError, UserError
from unit.image_source import ImageSource
from unit.images import center_crop, random_crop, to_tensor
from unit.seeds import seed_for

_MAX_ATTEMPTS = 20
"""Images to try for a sample: with up to 1 % bad, 20 bad ones in a row are practically impossible."""
_TIMEOUT = 300
"""Seconds to wait for a batch, in parts: of the time in which the process is suspended (Ctrl-Z), only one counts."""
_PART_OF_TIMEOUT = 5
_FAILURES = {
    "shared memory": "had too little shared memory; enlarge it (docker run --shm-size 8g), or set data.workers to 0",
    "killed by signal": "was killed, probably out of memory; lower data.workers",
    "exited unexpectedly": "died, probably out of memory; lower data.workers",
    "DataLoader timed out": "timed out after 5 minutes; check the disk",
}
"""Explanations, by words of torch's error message."""
_GRACE_PERIOD = 20
"""Seconds that a DataLoader worker lives on after SIGTERM."""


@dataclass(frozen=True)
class Item:
    """One image of each domain, and the bad images that were skipped for it."""

    images: PerDomain[Tensor]
    """(3, crop, crop) in [-1, 1]; in a batch (B, 3, crop, crop)"""
    bad: list[tuple[Domain, str, ImageError]]
    """domain, name and error"""

    def pin_memory(self) -> Item:
        """Pin the images; DataLoader calls this for CUDA."""
        return Item(self.images.map(Tensor.pin_memory), self.bad)


class SampleOrder:
    """The order in which training sees each domain's images: another permutation in every epoch."""

    def __init__(self, sources: PerDomain[ImageSource], seed: int) -> None:
        self._sources, self._seed = sources, seed
        self._orders: dict[Domain, tuple[int, Tensor]] = {}  # current epoch and its order: 8 MB for a million images

    def index(self, domain: Domain, sample_index: int) -> int:
        """Return the index of the image that is sample `sample_index`."""
        epoch, position = divmod(sample_index, len(self._sources[domain]))
        if domain not in self._orders or self._orders[domain][0] != epoch:
            seed = seed_for(self._seed, "order", domain, epoch)
            self._orders[domain] = epoch, self._sources[domain].epoch_order(seed)
        return int(self._orders[domain][1][position])


class TrainingImages(Dataset[Item | ImageError]):
    """Item k: sample k of each domain.

    Where an image can't be read, the item is the error: raised in a DataLoader worker, it would come with a traceback.
    With `data.on_bad_image` "skip", another image of the domain takes its place, always the same one.
    """

    def __init__(self, sources: PerDomain[ImageSource], config: DataConfig, seed: int) -> None:
        self.sources, self.config, self.seed = sources, config, seed
        self._order = SampleOrder(sources, seed)

    def index(self, domain: Domain, sample_index: int, attempt: int = 0) -> int:
        """Return the index of the image that is sample `sample_index`, after `attempt` bad ones."""
        if attempt:
            return seed_for(self.seed, "replacement", domain, sample_index, attempt) % len(self.sources[domain])
        return self._order.index(domain, sample_index)

    def __getitem__(self, sample_index: int) -> Item | ImageError:
        bad: list[tuple[Domain, str, ImageError]] = []
        try:
            return Item(PerDomain.of(lambda domain: self._image(domain, sample_index, bad)), bad)
        except ImageError as error:
            return error

    def _image(self, domain: Domain, sample_index: int, bad: list[tuple[Domain, str, ImageError]]) -> Tensor:
        source, attempts = self.sources[domain], _MAX_ATTEMPTS if self.config.on_bad_image == "skip" else 1
        for attempt in range(attempts):
            index = self.index(domain, sample_index, attempt)
            try:
                image = source.resized(index, self.config.load_size)
                break
            except ImageError as error:
                bad.append((domain, source.name(index), error))
        else:
            raise bad[-1][2]
        seed = seed_for(self.seed, "augmentation", domain, sample_index)
        return to_tensor(random_crop(image, self.config.crop_size, self.config.flip, seed))


def training_batches(
    images: TrainingImages, bad: BadImages, batches: Iterable[Sequence[int]], workers: int, device: torch.device
) -> Generator[PerDomain[Tensor]]:
    """Yield batches (B, 3, crop, crop) of each domain, on `device`.

    Args:
        bad: notes the images that were skipped.
        batches: the sample indices of each batch.

    Raises:
        ImageError: an image of the batch can't be read.
        DataError: too many images were skipped.
        UserError: a DataLoader worker died or hangs.
    """
    with allow_many_workers():
        loader = DataLoader(
            images,
            batch_sampler=batches,  # type: ignore[arg-type]  # a range is as good as a list
            num_workers=workers,
            timeout=_PART_OF_TIMEOUT if workers else 0,
            pin_memory=device.type == "cuda",
            collate_fn=_collate,
            worker_init_fn=_ignore_signals,
        )
        items = iter(loader)
    try:
        while item := _next(items):
            if isinstance(item, ImageError):
                raise item
            for domain, name, error in item.bad:
                bad.note(domain, name, error)
            yield item.images.map(lambda images: images.to(device, non_blocking=True))
    finally:
        del items  # ends the DataLoader workers now, whoever still holds this frame


@contextmanager
def allow_many_workers() -> Iterator[None]:
    """Silence torch's warning of more DataLoader workers than cores: by default there are fewer."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")
        yield


def _next(items: Iterator[Item | ImageError]) -> Item | ImageError | None:
    """Return the next item, or None at the end; raises `UserError` when a DataLoader worker failed."""
    failure = None
    for _ in range(_TIMEOUT // _PART_OF_TIMEOUT):
        try:
            return next(items, None)
        except RuntimeError as error:
            failure = loader_failure(error)
            if failure is None:
                raise
            if "timed out" not in str(error):
                break
    assert failure
    raise failure  # not from the error, whose traceback would hold the loader and its processes


def loader_failure(error: RuntimeError) -> UserError | None:
    """Explain the death or hang of a DataLoader worker; None for any other error.

    The main process learns of a death by a signal, so the error may be raised anywhere.
    """
    for words, explanation in _FAILURES.items():
        if words in str(error):
            return UserError(f"a process that reads images {explanation}. The last checkpoint is good: resume from it")
    return None


def _collate(items: list[Item | ImageError]) -> Item | ImageError:
    """Stack the items into a batch, or return the first error among them."""
    good: list[Item] = []
    for item in items:
        if isinstance(item, ImageError):
            return item
        good.append(item)
    images: PerDomain[Tensor] = PerDomain.of(lambda i: default_collate([item.images[i] for item in good]))
    return Item(images, [bad for item in good for bad in item.bad])


def _ignore_signals(_: int) -> None:
    """Survive Ctrl-C and signals to the whole group: the workers are needed until the step is finished."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if hasattr(signal, "alarm"):  # SIGTERM is also how the main process ends a stuck worker
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE_PERIOD))
        signal.signal(signal.SIGALRM, lambda *_: os._exit(0))  # which is no failure to the main process


def held_out_image(source: ImageSource, index: int, config: DataConfig, native: bool = False) -> Tensor:
    """Return a held-out image, (3, H, W) in [-1, 1]: `native`, or resized and center-cropped as training sees it."""
    if native:
        return to_tensor(source.image(index))
    return to_tensor(center_crop(source.resized(index, config.load_size), config.crop_size))
