"""Test images as tensors; unreadable ones are skipped or stop the run, as `data.on_bad_image` says."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from unit.config import DataConfig
from unit.data.batches import held_out_image
from unit.domains import Domain, PerDomain
from unit.errors import ImageError
from unit.image_source import ImageSource

log = logging.getLogger(__name__)


def load_held_out(
    sources: PerDomain[ImageSource], indices: range, data: DataConfig, at_most: int | None = None
) -> PerDomain[Tensor]:
    """Load the images at the first `at_most` readable `indices` of each domain, as (n, 3, crop, crop).

    Where bad images are skipped, an index is left out of both domains, so that pairs stay pairs.

    Raises:
        ImageError: an image can't be read; where bad images are skipped, none of a domain's can.
    """
    chosen: PerDomain[Sequence[int]] = sources.map(lambda source: [k for k in indices if k < len(source)])
    loaded: PerDomain[list[Tensor]] = PerDomain([], [])
    failures: list[ImageError] = []
    for _, images in readable(sources, chosen, data, failures):
        for i in Domain:
            loaded[i].extend(images[i])
        if at_most is not None and max(map(len, loaded)) >= at_most:
            break
    if failures and not all(loaded):
        raise failures[-1]
    return loaded.map(lambda images: stack(images, data))


def readable(
    sources: PerDomain[ImageSource], chosen: PerDomain[Sequence[int]], data: DataConfig, failures: list[ImageError]
) -> Iterator[tuple[int, PerDomain[list[Tensor]]]]:
    """Yield k and the k-th chosen image of each domain, in a list that is empty for a domain with fewer images.

    Where bad images are skipped, they are logged and appended to `failures`.

    Raises:
        ImageError: an image can't be read, and `data.on_bad_image` is "stop".
    """

    def load(i: Domain, k: int) -> list[Tensor]:
        return [held_out_image(sources[i], index, data) for index in chosen[i][k : k + 1]]

    for k in range(max(chosen.map(len))):
        try:
            images = PerDomain(load(Domain.A, k), load(Domain.B, k))
        except ImageError as error:
            if data.on_bad_image == "stop":
                raise
            log.warning("%s; skipped", error)
            failures.append(error)
        else:
            yield k, images


def stack(images: list[Tensor], data: DataConfig) -> Tensor:
    """Stack to (n, 3, crop, crop), also when n is 0."""
    return torch.stack(images) if images else torch.empty(0, 3, data.crop_size, data.crop_size)
