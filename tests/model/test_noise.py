import torch

from unit.model.noise import gaussian

CPU = torch.device("cpu")


def test_each_items_noise_follows_from_its_own_seed() -> None:
    three, alone = gaussian((2, 3, 4), [5, 6, 7], CPU), gaussian((2, 3, 4), [6], CPU)
    assert three.shape == (3, 2, 3, 4)
    assert torch.equal(three[1], alone[0])
    assert not torch.equal(three[0], three[1])


def test_noise_is_standard_normal_in_fp32() -> None:
    noise = gaussian((100, 100), [1, 2], CPU)
    assert noise.dtype == torch.float32
    assert abs(noise.mean().item()) < 0.03
    assert abs(noise.std().item() - 1) < 0.03
