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
    loaded = [images for _, images in readable(sources, chosen, data, at_most)]
    return PerDomain.of(lambda i: stack([image for images in loaded for image in images[i]], data))


def readable(
    sources: PerDomain[ImageSource], chosen: PerDomain[Sequence[int]], data: DataConfig, at_most: int | None = None
) -> Iterator[tuple[int, PerDomain[list[Tensor]]]]:
    """Yield the first `at_most` k whose images can be read, and the k-th chosen image of each domain.

    The images come in lists, of which one is empty where that domain has fewer images.

    Raises:
        ImageError: an image can't be read; where bad images are skipped, none of a domain's can.
    """

    def load(i: Domain, k: int) -> list[Tensor]:
        return [held_out_image(sources[i], index, data) for index in chosen[i][k : k + 1]]

    failure, unseen, count = None, set(Domain), 0
    for k in range(max(chosen.map(len))):
        try:
            images = PerDomain(load(Domain.A, k), load(Domain.B, k))
        except ImageError as error:
            if data.on_bad_image == "stop":
                raise
            log.warning("%s; skipped", error)
            failure = error
            continue
        yield k, images
        unseen -= {i for i in Domain if images[i]}
        count += 1
        if count == at_most:
            break
    if failure and unseen:
        raise failure


def stack(images: list[Tensor], data: DataConfig) -> Tensor:
    """Stack to (n, 3, crop, crop), also when n is 0."""
    return torch.stack(images) if images else torch.empty(0, 3, data.crop_size, data.crop_size)
