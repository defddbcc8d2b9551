"""The objective against numbers worked out by hand, with affine "networks".

E_a(x) = x + 1, E_b(x) = x + 10, G_a(z) = 2z, G_b(z) = 3z, D_a(x) = x, D_b(x) = -x; x_a = 1, x_b = 2 everywhere; noise
of 1 and 2 for the codes of A and B, and of 4 and 8 for the codes of what A and B became:

    μ_a = 2, μ_b = 12;  z_a = 3, z_b = 14
    x_a→a = 2·3 = 6         x_b→b = 3·14 = 42
    x_a→b = 3·3 = 9         x_b→a = 2·14 = 28
    μ of x_a→b = E_b(9) = 19;  μ of x_b→a = E_a(28) = 29
    x_a→b→a = 2·(19 + 4) = 46   x_b→a→b = 3·(29 + 8) = 111
"""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from unit.config import LossConfig
from unit.domains import Domain, PerDomain
from unit.model.networks import Autoencoders, Discriminators, Encoder, Generator
from unit.model.objective import (
    Noise,
    autoencoder_terms,
    discriminator_terms,
    forward_pass,
    generator_terms,
    total,
)

SHAPE = (2, 3, 4, 4)
WEIGHTS = LossConfig(lambda0=7, lambda1=2, lambda2=3, lambda3=5, lambda4=11, adversarial="least_squares")
X = PerDomain(torch.full(SHAPE, 1.0), torch.full(SHAPE, 2.0))


class Affine(nn.Module):
    def __init__(self, scale: float, shift: float = 0.0) -> None:
        super().__init__()
        self.scale, self.shift = scale, shift

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x + self.shift


class OneScale(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.scale * x]


def constant(a: float, b: float) -> PerDomain[Tensor]:
    return PerDomain(torch.full(SHAPE, a), torch.full(SHAPE, b))


NOISE = Noise(code=constant(1, 2), cycle=constant(4, 8))


def networks() -> Autoencoders:
    shared = nn.Identity()
    return Autoencoders(
        PerDomain(Encoder(Affine(1, 1), shared), Encoder(Affine(1, 10), shared)),
        PerDomain(Generator(shared, Affine(2)), Generator(shared, Affine(3))),
        latent_channels=3,
    )


def discriminators() -> Discriminators:
    return Discriminators(PerDomain(OneScale(1), OneScale(-1)))


def value(tensor: Tensor) -> float:
    assert (tensor == tensor.flatten()[0]).all()
    return tensor.flatten()[0].item()


def test_one_pass_by_hand() -> None:
    out = forward_pass(networks(), X, NOISE, WEIGHTS)
    assert [value(t) for t in out.mu] == [2, 12]
    assert [value(t) for t in out.reconstruction] == [6, 42]
    assert [value(t) for t in out.translation] == [9, 28]
    assert [value(t) for t in out.cycle_mu] == [19, 29]
    assert [value(t) for t in out.cycle] == [46, 111]


def test_the_terms_of_encoders_and_generators_by_hand() -> None:
    terms = autoencoder_terms(forward_pass(networks(), X, NOISE, WEIGHTS), X, WEIGHTS)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(
        {
            "kl_a": 2 * 2**2,
            "kl_b": 2 * 12**2,
            "reconstruction_a": 3 * (6 - 1),
            "reconstruction_b": 3 * (42 - 2),
            "cycle_kl_a": 5 * (2**2 + 19**2),
            "cycle_kl_b": 5 * (12**2 + 29**2),
            "cycle_a": 11 * (46 - 1),
            "cycle_b": 11 * (111 - 2),
        }
    )
    assert total(terms).item() == pytest.approx(sum(term.item() for term in terms.values()))


def test_the_adversarial_terms_by_hand() -> None:
    fake = forward_pass(networks(), X, NOISE, WEIGHTS).translation.swapped()
    assert [value(t) for t in fake] == [28, 9]  # D_a judges what came from B, D_b what came from A
    verdicts = discriminators().compare(X, fake)
    assert {n: t.item() for n, t in discriminator_terms(*verdicts, WEIGHTS).items()} == pytest.approx(
        {"discriminator_a": 7 * ((1 - 1) ** 2 + 28**2), "discriminator_b": 7 * ((-2 - 1) ** 2 + (-9) ** 2)}
    )
    assert {n: t.item() for n, t in generator_terms(verdicts[1], WEIGHTS).items()} == pytest.approx(
        {"adversarial_a": 7 * (28 - 1) ** 2, "adversarial_b": 7 * (-9 - 1) ** 2}
    )


def test_bce_by_hand() -> None:
    weights = replace(WEIGHTS, adversarial="bce")
    real, fake = constant(0, 0).map(lambda t: [t]), constant(math.log(3), -math.log(3)).map(lambda t: [t])
    terms = discriminator_terms(real, fake, weights)
    assert terms["discriminator_a"].item() == pytest.approx(7 * (math.log(2) + math.log(4)), rel=1e-6)
    assert terms["discriminator_b"].item() == pytest.approx(7 * (math.log(2) + math.log(4 / 3)), rel=1e-6)
    terms = generator_terms(fake, weights)
    assert terms["adversarial_a"].item() == pytest.approx(7 * math.log(4 / 3), rel=1e-6)
    assert terms["adversarial_b"].item() == pytest.approx(7 * math.log(4), rel=1e-6)


@pytest.mark.parametrize(
    ("off", "gone"),
    [("lambda1", "kl"), ("lambda2", "reconstruction"), ("lambda3", "cycle_kl"), ("lambda4", "cycle")],
)
def test_a_weight_of_0_leaves_out_its_term_alone(off: str, gone: str) -> None:
    weights = replace(WEIGHTS, **{off: 0.0})
    full = autoencoder_terms(forward_pass(networks(), X, NOISE, WEIGHTS), X, WEIGHTS)
    terms = autoencoder_terms(forward_pass(networks(), X, NOISE, weights), X, weights)
    assert full.keys() - terms.keys() == {f"{gone}_{i}" for i in Domain}
    assert all(torch.equal(term, full[name]) for name, term in terms.items())


@pytest.mark.parametrize(
    ("off", "encodings", "decodings"),
    [
        ((), 2, 2),
        (("lambda1",), 2, 2),
        (("lambda4",), 2, 1),  # the cycle's KL still needs the second encoding
        (("lambda3", "lambda4"), 1, 1),
        (("lambda0", "lambda3", "lambda4"), 1, 1),
    ],
)
def test_a_weight_of_0_saves_its_computation(off: tuple[str, ...], encodings: int, decodings: int) -> None:
    model, runs = networks(), {"encoder": 0, "generator": 0}
    for kind in runs:
        module = getattr(model, f"{kind}s")["a"].private
        module.register_forward_hook(lambda *_, kind=kind: runs.__setitem__(kind, runs[kind] + 1))
    weights = replace(WEIGHTS, **dict.fromkeys(off, 0.0))
    out = forward_pass(model, X, NOISE, weights)
    assert runs == {"encoder": encodings, "generator": decodings}
    assert (out.translation is None) == ({"lambda0", "lambda3", "lambda4"} <= set(off))


def test_without_reconstruction_nothing_is_reconstructed() -> None:
    out = forward_pass(networks(), X, NOISE, replace(WEIGHTS, lambda2=0.0))
    assert out.reconstruction is None
    assert [value(t) for t in out.translation] == [9, 28]
    assert [value(t) for t in out.cycle] == [46, 111]
