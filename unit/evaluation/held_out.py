"""Test images as tensors; unreadable ones are skipped or stop the run, as `data.on_bad_image` says."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from tqdm import tqdm

from unit.config import DataConfig
from unit.data.batches import held_out_image
from unit.domains import Domain, PerDomain
from unit.errors import ImageError, ModelError, UserError, escape
from unit.image_source import ImageSource
from unit.images import resize_short_side, to_image, to_tensor
from unit.translation.files.image_files import SMALLER, to_file_size

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
    sources: PerDomain[ImageSource],
    chosen: PerDomain[Sequence[int]],
    data: DataConfig,
    at_most: int | None = None,
    native: bool = False,
) -> Iterator[tuple[int, PerDomain[list[Tensor]]]]:
    """Yield the first `at_most` k whose images can be read, and the k-th chosen image of each domain.

    The images come in lists, of which one is empty where that domain has fewer images; `native`: at their own size.

    Raises:
        ImageError: an image can't be read; where bad images are skipped, none of a domain's can.
    """

    def load(i: Domain, k: int) -> list[Tensor]:
        return [held_out_image(sources[i], index, data, native) for index in chosen[i][k : k + 1]]

    failure, unseen, count = None, set(Domain), 0
    longest = max(chosen.map(len))
    hidden = not (native and sys.stderr.isatty())  # small ones take no time
    for k in tqdm(range(longest), total=min(longest, at_most or longest), unit="image", leave=False, disable=hidden):
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


def run_as_translate(network: Callable[[Tensor, Domain], Tensor], image: Tensor, i: Domain, size: int | None) -> Tensor:
    """Run `Translator.translate` or `reconstruct` on an image as the verb `translate` does; the result is on the CPU.

    Args:
        network: the method.
        image: (1, 3, H, W) of domain i.
        i: the image's domain.
        size: the short side at which the network works, like `--size`; None: the image's own.

    Raises:
        UserError: out of memory.
        ModelError: the result contains NaN or Inf.
    """
    original = to_image(image[0])
    x = image if size is None else to_tensor(resize_short_side(original, size))[None]
    try:
        output = network(x, i).cpu()
    except UserError as error:
        raise type(error)(f"{error}; {SMALLER}") from error
    if not output.isfinite().all():
        raise ModelError("the model's output contains NaN or Inf; try --precision fp32, or a model of an earlier step")
    return output if size is None else to_tensor(to_file_size(output[0], original.size))[None]


@contextmanager
def naming(source: ImageSource, index: int) -> Iterator[None]:
    """Put the image's name before a `UserError`, such as that the memory is too small for it."""
    try:
        yield
    except UserError as error:
        raise type(error)(f"{escape(source.name(index))}: {error}") from error
