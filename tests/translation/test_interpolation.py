"""A walk begins and ends with the two images' own codes, and the code keeps its length on the way."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from tests.tiny import TINY
from unit.domains import Domain, PerDomain
from unit.errors import UserError
from unit.model.networks import build_autoencoders
from unit.translation.interpolation import slerp, walk
from unit.translation.translator import Translator

A, B = Domain


def code(seed: int, length: float = 1.0) -> torch.Tensor:
    z = torch.randn(16, 5, 6, generator=torch.Generator().manual_seed(seed))
    return z * (length / z.norm())


def image(width: int, height: int, seed: int) -> Image.Image:
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(levels)


@pytest.fixture(scope="module")
def translator() -> Translator:
    torch.manual_seed(0)
    return Translator(build_autoencoders(TINY.model), TINY, PerDomain("sunny", "rainy"), 7, "cpu", "fp32")


def test_both_ends_are_exact() -> None:
    first, second = code(0, 3.0), code(1, 2.0)
    assert torch.equal(slerp(first, second, 0.0), first)
    assert torch.equal(slerp(first, second, 1.0), second)


def test_codes_of_one_length_keep_it_and_turn_evenly() -> None:
    codes = [slerp(code(0, 5.0), code(1, 5.0), step / 8) for step in range(9)]
    assert all(math.isclose(float(z.norm()), 5.0, rel_tol=1e-5) for z in codes)
    steps = [float((b - a).norm()) for a, b in pairwise(codes)]
    assert math.isclose(min(steps), max(steps), rel_tol=1e-3)
    straight = torch.lerp(code(0, 5.0), code(1, 5.0), 0.5)
    assert float(straight.norm()) < 4


def test_a_quarter_turn_is_known() -> None:
    x, y = torch.zeros(2, 2, 1, 1)
    x[0], y[1] = 1, 1
    assert torch.allclose(slerp(x, y, 1 / 3).flatten(), torch.tensor([math.cos(math.pi / 6), 0.5]))


@pytest.mark.parametrize("second", [code(0), code(0, 2.0), -code(0), torch.zeros(16, 5, 6), code(0) * (1 + 1e-7)])
def test_where_there_is_no_arc_the_line_is_taken(second: torch.Tensor) -> None:
    for fraction in (0.0, 0.25, 1.0):
        assert torch.equal(slerp(code(0), second, fraction), torch.lerp(code(0), second, fraction))


@pytest.mark.parametrize("domains", [(A, A), (B, B), (A, B), (B, A)])
def test_a_walk_goes_from_the_first_image_to_the_second(translator: Translator, domains: tuple[Domain, Domain]) -> None:
    images = image(18, 13, 0), image(30, 30, 1)
    frames = list(walk(translator, (images[0], domains[0]), (images[1], domains[1]), 4))
    assert [frame.size for frame in frames] == [(36, 13)] * 4
    fitted = images[0], ImageOps.fit(images[1], (18, 13), Image.Resampling.BICUBIC)
    for frame, still, domain in zip((frames[0], frames[-1]), fitted, domains, strict=True):
        own, other = translator.reconstruct(still, domain), translator(still, domain.direction)
        left, right = (own, other) if domain is A else (other, own)
        assert np.array_equal(np.asarray(frame), np.hstack([np.asarray(left), np.asarray(right)]))
    assert len({frame.tobytes() for frame in frames}) == 4


def test_an_output_with_nan_is_one_line() -> None:
    networks = build_autoencoders(TINY.model)
    torch.nn.init.constant_(networks.generator.private["a"][-1].convolution.bias, torch.nan)  # type: ignore[index, union-attr]
    broken = Translator(networks, TINY, PerDomain("sunny", "rainy"), 7, "cpu", "fp32")
    with pytest.raises(UserError, match="NaN or Inf"):
        next(walk(broken, (image(8, 8, 0), A), (image(8, 8, 1), A), 2))
