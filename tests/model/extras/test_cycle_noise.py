import torch

from tests.model.affine import NOISE, X, autoencoders, make_images, seeds
from unit.domains import Domain
from unit.model.extras.cycle_noise import Extra
from unit.model.noise import gaussian
from unit.model.objective import forward_pass


def test_noise_of_the_given_deviation_is_added_to_each_translation_from_its_own_seed() -> None:
    x = make_images()
    noisy = Extra(0.05, autoencoders()).perturb(x, seeds)
    for i in Domain:
        epsilon = gaussian(x[i].shape[1:], seeds("image noise", i), torch.device("cpu"))
        assert torch.equal(noisy[i], x[i] + 0.05 * epsilon)
    assert not torch.equal(noisy.a - x.a, noisy.b - x.b)


def test_the_same_images_alone_get_the_same_noise() -> None:
    x, extra = make_images(), Extra(0.05, autoencoders())
    together = extra.perturb(x, seeds)
    alone = extra.perturb(x.map(lambda x: x[2:]), lambda *key: seeds(*key)[2:])
    assert all(torch.equal(together[i][2:], alone[i]) for i in Domain)


def test_only_the_cycle_sees_the_noise() -> None:
    extra = Extra(0.5, autoencoders())
    plain = forward_pass(autoencoders(), X, NOISE)
    noisy = forward_pass(autoencoders(), X, NOISE, lambda x: extra.perturb(x, lambda p, i: seeds(p, i)[:2]))
    assert plain.cycle_mu
    assert noisy.cycle_mu
    for i in Domain:
        assert torch.equal(noisy.mu[i], plain.mu[i])
        assert torch.equal(noisy.translation[i], plain.translation[i])
        epsilon = gaussian(X.a.shape[1:], seeds("image noise", i)[:2], torch.device("cpu"))
        torch.testing.assert_close(noisy.cycle_mu[i] - plain.cycle_mu[i], 0.5 * epsilon)
