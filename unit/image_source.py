"""The base class of everything that a domain's images come from: folders, shards, generated data sets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from PIL import Image

from unit.errors import ImageError, escape
from unit.images import resize_short_side

if TYPE_CHECKING:
    from torch import Tensor


class ImageSource(ABC):
    """Images by index. DataLoader workers get copies, so sources must pickle."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def name(self, index: int) -> str:
        """Return a name that identifies the image from run to run."""

    @abstractmethod
    def image(self, index: int, short_side: int | None = None) -> Image.Image:
        """Return the image: RGB, upright, of any size.

        Args:
            short_side: the size in pixels that it will be scaled to: it may come smaller than stored, but no smaller
                than this.

        Raises:
            ImageError: it can't be read.
        """

    @property
    def folder(self) -> Path | None:
        """The folder in which each image is a file of its own, if there is one."""
        return None

    @property
    def origins(self) -> Iterable[tuple[str, bool]]:
        """The real path of each folder with images, also behind links, and whether everything below it is read."""
        return ()

    def stats(self) -> Iterable[tuple[int, int]]:
        """Return the size in bytes and modification time (ns) of each image's file; none where images are computed."""
        return ()

    def content(self, index: int) -> bytes:
        """Return the bytes of an image's file; none if it can't be read."""
        raise NotImplementedError(f"{type(self).__name__} has no files")

    def files(self) -> Sequence[str]:
        """The path of each image's file; empty where images are not files of their own."""
        return ()

    def train_test_split(self) -> tuple[Self, Self]:
        """Return (training images, held-out images), by their names."""
        raise NotImplementedError(f"{type(self).__name__} can't be split")

    def epoch_order(self, seed: int) -> Tensor:
        """Return the order of an epoch: a permutation of the indices (int64) that is a function of `seed`."""
        import torch  # takes seconds, which listing images need not wait for

        return torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))

    def resized(self, index: int, size: int) -> Image.Image:
        """Return the image with its short side scaled to `size`.

        Raises:
            ImageError: it can't be read, or is too thin.
        """
        image = self.image(index, size)
        try:
            return resize_short_side(image, size)
        except ImageError as error:
            raise ImageError(f"{escape(self.name(index))}: {error}") from error
