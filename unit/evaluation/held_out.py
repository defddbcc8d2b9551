"""Test images as tensors, those that can't be read passed over where that is wanted."""

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
    """(n, 3, crop, crop) of each domain, the images of the first `at_most` `indices`, as far as there are any.

    Where `data.on_bad_image` is "skip", an index with an image that can't be read is left out of both domains, so that
    pairs stay pairs.

    Raises:
        ImageError: an image can't be read, or none of a domain's can.
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
    return loaded.map(lambda images: stacked(images, data))


def readable(
    sources: PerDomain[ImageSource], chosen: PerDomain[Sequence[int]], data: DataConfig, failures: list[ImageError]
) -> Iterator[tuple[int, PerDomain[list[Tensor]]]]:
    """k and the k-th chosen image of each domain, none of a domain with fewer; skipped ones go to `failures`.

    Raises:
        ImageError: an image can't be read, and `data.on_bad_image` is "stop".
    """
    for k in range(max(chosen.map(len))):
        try:
            yield (
                k,
                PerDomain.of(
                    lambda i: [held_out_image(sources[i], index, data) for index in chosen[i][k : k + 1]]  # noqa: B023
                ),
            )
        except ImageError as error:
            if data.on_bad_image == "stop":
                raise
            log.warning("%s; skipped", error)
            failures.append(error)


def stacked(images: list[Tensor], data: DataConfig) -> Tensor:
    """(n, 3, crop, crop), also of none."""
    return torch.stack(images) if images else torch.empty(0, 3, data.crop_size, data.crop_size)
