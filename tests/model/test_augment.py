"""DiffAugment: each kind by hand, each image by itself, gradients through all."""

import pytest
import torch

from unit.model.augment import augmented, colored, holed, moved

ALL = ("color", "translation", "cutout")
SEEDS = [2**62 + k for k in range(6)]


def make_images(count: int = 6, height: int = 16, width: int = 24) -> torch.Tensor:
    return torch.rand(count, 3, height, width) * 2 - 1


def test_without_kinds_nothing_happens() -> None:
    x = make_images()
    assert augmented(x, SEEDS, ()) is x


def test_neutral_numbers_change_nothing() -> None:
    x = make_images(1)
    torch.testing.assert_close(colored(x, 0, 1, 1), x)
    assert torch.equal(moved(x, 0, 0), x)


def test_color_by_hand() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.5, 0.0]]).reshape(1, 3, 1, 2)
    brighter = colored(x, 0.25, 1, 1)
    torch.testing.assert_close(brighter, x + 0.25)
    grays = torch.tensor([0.5, 0.0]).expand(1, 3, 1, 2)
    torch.testing.assert_close(colored(x, 0, 0, 1), grays)
    torch.testing.assert_close(colored(x, 0, 2, 1), 2 * x - grays)
    torch.testing.assert_close(colored(x, 0, 1, 0.5), (x + 0.25) / 2)  # the mean of all six is ¼
    torch.testing.assert_close(colored(x, 1, 0, 0.5), (grays + 0.25) / 2 + 1)


def test_moved_by_hand() -> None:
    x = torch.arange(1.0, 7).reshape(1, 1, 2, 3)
    assert moved(x, 1, -1)[0, 0].tolist() == [[0, 0, 0], [2, 3, 0]]
    assert moved(x, -1, 2)[0, 0].tolist() == [[0, 0, 4], [0, 0, 0]]


def test_holed_by_hand() -> None:
    x = torch.ones(1, 1, 4, 6)
    assert holed(x, 2, 4)[0, 0].tolist() == [
        *[[1, 1, 1, 1, 1, 1]],
        *[[1, 1, 1, 0, 0, 0]] * 2,
        *[[1, 1, 1, 1, 1, 1]],
    ]
    assert (holed(x, 0, 0) == 0).sum() == 1 * 2, "only what lies within"


def test_what_becomes_of_a_image_depends_on_its_seed_alone() -> None:
    x = make_images()
    together = augmented(x, SEEDS, ALL)
    for k, seed in enumerate(SEEDS):
        assert torch.equal(augmented(x[k : k + 1], [seed], ALL)[0], together[k])
    order = [3, 1, 4, 0, 5, 2]
    assert torch.equal(
        augmented(x[order], [SEEDS[k] for k in order], ("cutout", "color", "translation")), together[order]
    )
    same = augmented(x[:1].expand(6, -1, -1, -1), SEEDS, ALL)
    assert len({image.sum().item() for image in same}) == 6


def test_a_kind_draws_the_same_whatever_else_is_done() -> None:
    x = torch.ones(6, 3, 16, 16)
    alone, after = augmented(x, SEEDS, ["cutout"]), augmented(x, SEEDS, ["translation", "cutout"])
    assert (after[alone == 0] == 0).all()


def test_the_numbers_keep_to_their_ranges_and_reach_their_ends() -> None:
    gray, seeds = torch.zeros(400, 3, 16, 16), range(400)
    brightness = augmented(gray, seeds, ["color"]).mean((1, 2, 3))
    assert -0.5 <= brightness.min() < -0.45
    assert 0.45 < brightness.max() <= 0.5
    row = torch.zeros(400, 3, 16, 16)
    row[:, :, 8, 8] = 1
    places = augmented(row, seeds, ["translation"])[:, 0].flatten(1).argmax(1)
    assert {(place // 16 - 8, place % 16 - 8) for place in places.tolist()} == {
        (down, right) for down in range(-2, 3) for right in range(-2, 3)
    }
    cut = (augmented(torch.ones(400, 3, 16, 16), seeds, ["cutout"]) == 0)[:, 0]
    assert cut.sum((1, 2)).max() == 8 * 8
    assert cut.any(0).all(), "every pixel may be cut out"
    color = torch.tensor([0.5, 0.0, -0.5])[None, :, None, None].expand(400, 3, 4, 4)
    spread = augmented(color, seeds, ["color"])
    factor = (spread[:, 0] - spread[:, 2]).mean((1, 2))  # saturation in [0, 2), then contrast in [0.5, 1.5)
    assert 0 <= factor.min() < 0.1
    assert 2.5 < factor.max() < 3


def test_gradients_pass_and_are_the_numbers_own() -> None:
    x = make_images(3).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: augmented(x, SEEDS[:3], ALL), x, fast_mode=True)
    (gradient,) = torch.autograd.grad(augmented(x, SEEDS[:3], ["translation", "cutout"]).sum(), x)
    assert set(gradient.unique().tolist()) == {0, 1}


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (16, 16)])
def test_shape_and_layout_stay(size: tuple[int, int]) -> None:
    x = torch.rand(6, 3, *size).contiguous(memory_format=torch.channels_last)
    out = augmented(x, SEEDS, ALL)
    assert out.shape == x.shape
    assert out.is_contiguous(memory_format=torch.channels_last)
