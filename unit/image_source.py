"""What a domain's images come from: anything with a length, names and images; and one of them resized."""

from __future__ import annotations

from typing import Protocol

from PIL import Image

from unit.errors import ImageError, escape
from unit.images import resize_short_side


class ImageSource(Protocol):
    """Images by index. Sources travel to loader processes, so they must pickle."""

    def __len__(self) -> int:
        """How many images there are."""
        ...

    def name(self, index: int) -> str:
        """A name that stays with the image."""
        ...

    def image(self, index: int, short_side: int | None = None) -> Image.Image:
        """The image: RGB, upright, any size.

        Where it will be scaled to a `short_side` in pixels, it may come smaller than it is, but no smaller than that.

        Raises:
            ImageError: it can't be read.
        """
        ...


def resized(source: ImageSource, index: int, size: int) -> Image.Image:
    """The image with its short side scaled to `size`; raises `ImageError` with its name."""
    image = source.image(index, size)
    try:
        return resize_short_side(image, size)
    except ImageError as error:
        raise ImageError(f"{escape(source.name(index))}: {error}") from error
