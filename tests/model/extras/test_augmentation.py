"""DiffAugment: each kind by hand, each image changed by its own seed, gradients through all of them."""

import pytest
import torch

from tests.model.affine import autoencoders, constant, seeds
from unit.config import LossConfig
from unit.domains import Domain
from unit.model.extras import LossExtras
from unit.model.extras.augmentation import augmented, colored, cut_out, translated

ALL = ("color", "translation", "cutout")
SEEDS = [2**62 + k for k in range(6)]


def make_images(count: int = 6, height: int = 16, width: int = 24) -> torch.Tensor:
    return torch.rand(count, 3, height, width) * 2 - 1


def test_without_kinds_images_are_unchanged() -> None:
    x = make_images()
    assert torch.equal(augmented(x, SEEDS, ()), x)


def test_neutral_parameters_change_nothing() -> None:
    x = make_images(1)
    torch.testing.assert_close(colored(x, 0, 1, 1), x)
    assert torch.equal(translated(x, 0, 0), x)


def test_color_by_hand() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.5, 0.0]]).reshape(1, 3, 1, 2)
    brighter = colored(x, 0.25, 1, 1)
    torch.testing.assert_close(brighter, x + 0.25)
    grays = torch.tensor([0.5, 0.0]).expand(1, 3, 1, 2)
    torch.testing.assert_close(colored(x, 0, 0, 1), grays)
    torch.testing.assert_close(colored(x, 0, 2, 1), 2 * x - grays)
    torch.testing.assert_close(colored(x, 0, 1, 0.5), (x + 0.25) / 2)  # the mean of all six is ¼
    torch.testing.assert_close(colored(x, 1, 0, 0.5), (grays + 0.25) / 2 + 1)


def test_translated_by_hand() -> None:
    x = torch.arange(1.0, 7).reshape(1, 1, 2, 3)
    assert translated(x, 1, -1)[0, 0].tolist() == [[0, 0, 0], [2, 3, 0]]
    assert translated(x, -1, 2)[0, 0].tolist() == [[0, 0, 4], [0, 0, 0]]


def test_cut_out_by_hand() -> None:
    x = torch.ones(1, 1, 4, 6)
    assert cut_out(x, 2, 4)[0, 0].tolist() == [
        *[[1, 1, 1, 1, 1, 1]],
        *[[1, 1, 1, 0, 0, 0]] * 2,
        *[[1, 1, 1, 1, 1, 1]],
    ]
    assert (cut_out(x, 0, 0) == 0).sum() == 1 * 2, "clipped at the edges"


def test_each_images_change_depends_on_its_own_seed_only() -> None:
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


def test_a_kind_draws_the_same_numbers_beside_other_kinds() -> None:
    x = torch.ones(6, 3, 16, 16)
    alone, after = augmented(x, SEEDS, ["cutout"]), augmented(x, SEEDS, ["translation", "cutout"])
    assert (after[alone == 0] == 0).all()


def test_changes_stay_in_their_ranges_and_reach_both_ends() -> None:
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


def test_gradients_pass_through_and_equal_finite_differences() -> None:
    x = make_images(3).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: augmented(x, SEEDS[:3], ALL), x, fast_mode=True)
    (gradient,) = torch.autograd.grad(augmented(x, SEEDS[:3], ["translation", "cutout"]).sum(), x)
    assert set(gradient.unique().tolist()) == {0, 1}


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (16, 16)])
def test_shape_and_memory_format_are_kept(size: tuple[int, int]) -> None:
    x = torch.rand(6, 3, *size).contiguous(memory_format=torch.channels_last)
    out = augmented(x, SEEDS, ALL)
    assert out.shape == x.shape
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_real_images_and_translations_are_augmented_with_seeds_of_their_own() -> None:
    x, translation, kinds = constant(1, 2), constant(9, 28), ("color", "cutout")
    extras = LossExtras(LossConfig(augmentation="color,cutout"), autoencoders())

    def two_seeds(purpose: str, domain: Domain) -> list[int]:
        return seeds(purpose, domain)[:2]

    real, fake = extras.discriminator_inputs(x, translation, two_seeds)
    for i in Domain:
        assert torch.equal(real[i], augmented(x[i], two_seeds("augmentation of real", i), kinds))
        j = i.other  # D_i sees what came from j
        assert torch.equal(fake[i], augmented(translation[j], two_seeds("augmentation of fake", j), kinds))
    again = extras.discriminator_inputs(x, translation, two_seeds)
    assert all(torch.equal(again[1][i], fake[i]) for i in Domain), "both updates see the same"
