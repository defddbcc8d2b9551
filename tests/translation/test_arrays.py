"""Images of every kind reach the network as the same batch and come back as the same kind; others are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from unit.errors import ImageError, UserError
from unit.images import to_tensor
from unit.translation import arrays
from unit.translation.arrays import AnyImage, from_batch, map_batches, to_batch

LEVELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
LEVELS[0, :2] = [[0, 0, 0], [255, 255, 255]]
BATCH = to_tensor(Image.fromarray(LEVELS))[None]
KINDS: dict[str, AnyImage] = {
    "PIL": Image.fromarray(LEVELS),
    "uint8": LEVELS,
    "uint16": LEVELS.astype(np.uint16) * 257,
    "big-endian": (LEVELS.astype(">u2") * 257).astype(">u2"),
    "not contiguous": np.ascontiguousarray(LEVELS[:, ::-1])[:, ::-1],
    "float16": (LEVELS / 255).astype(np.float16),
    "float32": (LEVELS / 255).astype(np.float32),
    "float64": LEVELS / 255,
    "tensor": BATCH[0],
    "tensor of float64": BATCH[0].double(),
    "tensor of uint8": torch.from_numpy(LEVELS).permute(2, 0, 1),
    "batch": BATCH.repeat(2, 1, 1, 1),
    "batch of uint8": torch.from_numpy(LEVELS).permute(2, 0, 1).repeat(2, 1, 1, 1),
}


def values(image: AnyImage) -> NDArray[Any]:
    return image.numpy() if isinstance(image, Tensor) else np.asarray(image)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_the_same_batch(kind: str) -> None:
    batch = to_batch(KINDS[kind])
    assert batch.dtype == torch.float32
    assert batch.shape == (2 if "batch" in kind else 1, 3, 5, 7)
    assert torch.allclose(batch, BATCH.expand_as(batch), rtol=0, atol=1e-3 if kind == "float16" else 1e-6)
    assert torch.equal(batch, BATCH.expand_as(batch)) or kind not in ("uint8", "tensor of uint8", "batch of uint8")


@pytest.mark.parametrize("kind", KINDS)
def test_the_batch_becomes_the_same_kind(kind: str) -> None:
    image: Any = KINDS[kind]
    back = from_batch(to_batch(image), image)
    assert type(back) is type(image)
    assert values(back).dtype == values(image).dtype
    assert values(back).shape == values(image).shape
    if values(image).dtype.kind == "f":
        assert np.allclose(values(back), values(image), rtol=0, atol=1e-3)
    else:
        assert np.array_equal(values(back), values(image))


def test_16_bits_do_not_pass_through_8() -> None:
    image = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1).repeat(3, 2)
    assert np.array_equal(from_batch(to_batch(image), image), image)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1)])
def test_gray_becomes_color(shape: tuple[int, ...]) -> None:
    gray = LEVELS[..., :1]
    batch = to_batch(gray.reshape(shape))
    assert torch.equal(batch, BATCH[:, :1].expand(-1, 3, -1, -1))
    assert from_batch(batch, gray).shape == (5, 7, 3)
    assert torch.equal(to_batch(BATCH[0, :1]), batch)
    assert torch.equal(to_batch(BATCH[:, :1].repeat(2, 1, 1, 1)), batch.repeat(2, 1, 1, 1))


def test_values_that_leave_their_range_by_rounding_are_taken() -> None:
    to_batch(np.full((4, 4, 3), 1.0005))
    to_batch(torch.full((3, 4, 4), -1.0005))


REFUSED: list[tuple[Any, str]] = [
    ("photo.jpg", "str is no image"),
    (None, "NoneType is no image"),
    (LEVELS.astype(np.int64), "array of int64: give uint8"),
    (LEVELS > 9, "array of bool"),
    (LEVELS.astype(complex), "array of complex128"),
    (BATCH[0].int(), "tensor of torch.int32: give torch.uint8"),
    (LEVELS[0, 0], r"shape \(3,\): an array \(height, width\)"),
    (LEVELS[None], r"shape \(1, 5, 7, 3\)"),
    (np.zeros((5, 7, 4), np.uint8), r"\(5, 7, 4\).* 1 or 3 channels"),
    (LEVELS.transpose(2, 0, 1), r"shape \(3, 5, 7\)"),
    (BATCH[0, 0], r"shape \(5, 7\): a tensor \(channels"),
    (torch.zeros(5, 7, 3), r"shape \(5, 7, 3\)"),
    (torch.zeros(1, 4, 5, 7), r"1 or 3 channels"),
    (np.zeros((0, 7, 3), np.uint8), "without pixels"),
    (torch.zeros(0, 3, 5, 7), "without pixels"),
    (Image.new("RGB", (0, 3)), "without pixels"),
    (LEVELS.astype(np.float32), "from 0 to 1 is expected, and this one holds 0 to 255"),
    (LEVELS / 127.5 - 1, "holds -1 to 1"),
    (BATCH[0] * 127.5, "from -1 to 1 is expected"),
    (np.full((4, 4), np.nan), "NaN or Inf"),
    (np.where(LEVELS == 0, np.inf, 0.5), "NaN or Inf"),
    (torch.full((3, 4, 4), torch.nan), "NaN or Inf"),
    (Image.new("F", (8, 8)), "no known white"),
]


@pytest.mark.parametrize(("image", "words"), REFUSED)
def test_what_is_no_image_is_refused_in_one_line(image: Any, words: str) -> None:
    with pytest.raises(ImageError, match=words) as caught:
        to_batch(image)
    assert str(caught.value).isprintable()
    with pytest.raises(ImageError, match=r"images\[1\]: .*" + words):
        map_batches(lambda x: x, [LEVELS, image])


@pytest.mark.parametrize("kind", ["PIL", "uint8", "uint16", "tensor of uint8"])
def test_an_output_that_integers_cannot_express_is_refused(kind: str) -> None:
    image: Any = KINDS[kind]
    with pytest.raises(UserError, match="NaN or Inf"):
        from_batch(torch.full((1, 3, 5, 7), torch.nan), image)


def test_outputs_beyond_the_range_are_clamped() -> None:
    image = KINDS["uint16"]
    assert isinstance(image, np.ndarray)
    assert from_batch(BATCH * 2, image).max() == 65535
    assert from_batch(BATCH * 2, image).min() == 0


def test_a_list_is_computed_in_batches_of_equal_size_and_keeps_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "_BATCH_PIXELS", 3 * 5 * 7)
    images = [KINDS[kind] for kind in ("uint8", "PIL", "tensor", "batch", "float64")]
    images.insert(2, np.zeros((9, 2), np.uint8))
    shapes = []

    def twice(x: Tensor) -> Tensor:
        shapes.append(tuple(x.shape))
        return x * 2

    results = map_batches(twice, images)
    assert shapes == [(3, 3, 5, 7), (3, 3, 5, 7), (1, 3, 9, 2)]
    for image, result in zip(images, results, strict=True):
        assert torch.equal(result, 2 * to_batch(image))
    assert map_batches(twice, []) == []
