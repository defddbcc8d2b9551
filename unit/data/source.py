"""What a domain's pictures come from: anything with a length, names and images."""

from __future__ import annotations

from typing import Protocol

from PIL import Image


class ImageSource(Protocol):
    """Pictures by index. Sources travel to loader processes, so they must pickle."""

    def __len__(self) -> int:
        """How many pictures there are."""
        ...

    def name(self, index: int) -> str:
        """A name that stays with the picture."""
        ...

    def image(self, index: int) -> Image.Image:
        """The picture: RGB, upright, any size.

        Raises:
            ImageError: it can't be read.
        """
        ...
