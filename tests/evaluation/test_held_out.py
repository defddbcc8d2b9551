from dataclasses import dataclass, replace

import pytest
from PIL import Image

from tests.tiny import TINY
from unit.domains import PerDomain
from unit.errors import ImageError
from unit.evaluation.held_out import load_held_out
from unit.image_source import ImageSource

SKIP = replace(TINY.data, on_bad_image="skip")


@dataclass
class Grays(ImageSource):
    """Images as bright as their index; damaged ones can't be read."""

    count: int
    damaged: tuple[int, ...] = ()

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"{index}.png"

    def image(self, index: int, short_side: int | None = None) -> Image.Image:
        if index in self.damaged:
            raise ImageError(f"{index}.png: damaged")
        return Image.new("RGB", (20, 20), (index, index, index))


def loaded(a: Grays, b: Grays, at_most: int | None = None) -> tuple[list[int], list[int]]:
    """Load the first ten, and return the indices that came."""
    images = load_held_out(PerDomain(a, b), range(10), SKIP, at_most)
    first, second = ([round((float(image.mean()) + 1) * 127.5) for image in domain] for domain in images)
    return first, second


def test_an_index_with_a_damaged_image_is_left_out_of_both_domains() -> None:
    assert loaded(Grays(3, damaged=(1,)), Grays(12)) == ([0, 2], [0, 2, 3, 4, 5, 6, 7, 8, 9])
    assert loaded(Grays(12, damaged=(0, 3)), Grays(12), at_most=3) == ([1, 2, 4], [1, 2, 4])
    assert loaded(Grays(0), Grays(1)) == ([], [0])


def test_a_domain_without_a_readable_image_is_an_error() -> None:
    with pytest.raises(ImageError, match=r"1\.png"):
        loaded(Grays(2, damaged=(0, 1)), Grays(12), at_most=3)
    with pytest.raises(ImageError, match=r"0\.png"):
        load_held_out(PerDomain(Grays(2, damaged=(0,)), Grays(2)), range(2), TINY.data)
