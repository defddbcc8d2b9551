"""The objective of domain adaptation, by hand, and what its networks share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional

from unit.digits.config import AdaptationConfig, AdaptationLossConfig, DigitsConfig, make_config
from unit.domains import Domain, PerDomain
from unit.errors import ConfigError
from unit.model.adaptation import (
    AdaptationPass,
    adaptation_pass,
    autoencoder_terms,
    consistency,
    discriminator_terms,
    distort,
    generator_terms,
    judge,
    translate_digits,
)
from unit.model.digit_networks import (
    Judgement,
    build_classifying_discriminators,
    build_digit_autoencoders,
    gaussian_code,
)
from unit.model.losses import class_cross_entropy, gaussian_kl, squared_distance
from unit.model.networks import TRANSLATIONS, Autoencoders, Encoder, Generator

A, B = Domain
PAIRS = [("usps", "mnist", 28), ("svhn", "mnist", 32), ("mnist", "svhn", 32)]
WEIGHTS = AdaptationLossConfig(adversarial=2.0, reconstruction=3.0, kl=5.0, feature_matching=7.0)


def config(source: str = "usps", target: str = "mnist") -> AdaptationConfig:
    return make_config(DigitsConfig("x", source, target), "paper")  # type: ignore[arg-type]


def images(source: str = "usps", target: str = "mnist", count: int = 3) -> PerDomain[Tensor]:
    data = config(source, target).data
    return PerDomain(source, target).map(
        lambda name: torch.rand(count, data.channels(name), data.size, data.size) * 2 - 1
    )


def seeds(purpose: str, i: Domain) -> list[int]:
    return [hash((purpose, i.value, k)) % 2**62 for k in range(3)]


def judgement(logit: float, features: list[float], count: int = 1) -> Judgement:
    return Judgement(torch.tensor([features] * count), torch.full((count, 1), logit), torch.zeros(count, 10))


# Losses


def test_the_kl_is_torchs_twice() -> None:
    mu, sd = torch.randn(4, 5, 1, 1), torch.rand(4, 5, 1, 1) + 0.1
    exact = kl_divergence(Normal(mu, sd), Normal(0.0, 1.0)).flatten(1).sum(1).mean()
    torch.testing.assert_close(gaussian_kl(mu, sd), 2 * exact)
    assert gaussian_kl(torch.zeros(2, 3), torch.ones(2, 3)) == 0


def test_distances_are_summed_over_an_image() -> None:
    assert squared_distance(torch.zeros(2, 1, 3, 3), torch.full((2, 1, 3, 3), 2.0)) == 4 * 9


def test_weights_leave_images_out_but_not_of_the_mean() -> None:
    logits, classes = torch.randn(4, 10), torch.tensor([1, 2, 3, 4])
    torch.testing.assert_close(class_cross_entropy(logits, classes), functional.cross_entropy(logits, classes))
    kept = torch.tensor([1.0, 0.0, 0.0, 1.0])
    expected = functional.cross_entropy(logits[[0, 3]], classes[[0, 3]]) / 2
    torch.testing.assert_close(class_cross_entropy(logits, classes, kept), expected)


def test_an_unsure_teacher_is_not_believed_and_gets_no_gradient() -> None:
    teacher = torch.zeros(2, 10)
    teacher[0, 3] = 10.0
    teacher.requires_grad_()
    student = torch.zeros(2, 10, requires_grad=True)
    loss = consistency(teacher, student, 0.95)
    torch.testing.assert_close(loss, torch.tensor(10.0).log() / 2)
    loss.backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad[0, 3] < 0
    assert student.grad[1].abs().max() == 0


# The pass and its terms


class Affine(nn.Module):
    def __init__(self, scale: float, offset: float, channels: int = 1) -> None:
        super().__init__()
        self.scale, self.offset, self.channels = scale, offset, channels

    def forward(self, x: Tensor) -> Tensor:
        return (self.scale * x + self.offset).expand(-1, self.channels, -1, -1)


def affine() -> Autoencoders:
    """E_a(x) = x + 1, E_b(x) = x + 10, both as mean and as what becomes the deviation; G_a(z) = 2 z, G_b(z) = 3 z."""
    shared = Affine(1.0, 0.0, 2)
    encoder = Encoder(PerDomain(nn.Sequential(Affine(1.0, 1.0)), nn.Sequential(Affine(1.0, 10.0))), shared)
    return Autoencoders(encoder, Generator(nn.Identity(), PerDomain(Affine(2.0, 0.0), Affine(3.0, 0.0))), [1], [1])


def test_the_pass_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unit.model.adaptation.gaussian", lambda shape, seeds, _: torch.ones(len(seeds), *shape))
    x = PerDomain(torch.full((1, 1, 1, 1), 4.0), torch.full((1, 1, 1, 1), 5.0))
    out = adaptation_pass(affine(), x, lambda *_: [0])
    deviations = [float(functional.softplus(torch.tensor(v))) + 1e-3 for v in (5.0, 15.0)]
    assert [float(mu) for mu in out.mu] == [5, 15]
    assert [float(sd) for sd in out.sd] == pytest.approx(deviations)
    z = [5 + deviations[0], 15 + deviations[1]]
    found = {(i, j): float(image) for (i, j), image in out.images.items()}
    assert found == {
        (A, A): pytest.approx(2 * z[0]),
        (A, B): pytest.approx(3 * z[0]),
        (B, A): pytest.approx(2 * z[1]),
        (B, B): pytest.approx(3 * z[1]),
    }
    assert float(translate_digits(affine(), x.a, A)) == 15, "without noise"
    assert float(translate_digits(affine(), x.b, B)) == 30


def test_the_autoencoders_terms_by_hand() -> None:
    one = torch.ones(2, 1, 2, 2)
    decoded = {(A, A): 3 * one, (A, B): 50 * one, (B, A): 60 * one, (B, B): 2 * one}
    out = AdaptationPass(PerDomain(0 * one, one), PerDomain(one, one), decoded)
    terms = autoencoder_terms(out, PerDomain(one, one), WEIGHTS)
    assert {name: float(term) for name, term in terms.items()} == {
        "kl_a": 0,
        "kl_b": 5 * 4,
        "reconstruction_a": 3 * 4 * 4,
        "reconstruction_b": 3 * 4,
    }


def bce(logit: float, real: bool) -> float:
    return float(functional.softplus(torch.tensor(float(-logit if real else logit))))


def test_the_adversarial_terms_by_hand() -> None:
    real = {A: judgement(1.0, [0.0]), B: judgement(2.0, [0.0])}
    fake = {
        (A, A): judgement(3.0, [1.0, 0.0]),
        (B, A): judgement(4.0, [2.0, 0.0]),
        (A, B): judgement(5.0, [1.0, 3.0]),
        (B, B): judgement(6.0, [2.0, 5.0]),
    }
    terms = discriminator_terms(real, fake, WEIGHTS)
    assert {name: float(term) for name, term in terms.items()} == {
        "discriminator_a": pytest.approx(bce(1, True) + (bce(3, False) + bce(4, False)) / 2),
        "discriminator_b": pytest.approx(bce(2, True) + (bce(5, False) + bce(6, False)) / 2),
        "feature_matching_a": pytest.approx(7 * 9),  # between x_a^{a→a} and x_a^{a→b}
        "feature_matching_b": pytest.approx(7 * 25),
    }
    assert {name: float(term) for name, term in generator_terms(fake, WEIGHTS).items()} == {
        "adversarial_a": pytest.approx(bce(3, True) + bce(4, True)),
        "adversarial_b": pytest.approx(bce(5, True) + bce(6, True)),
    }


def test_without_reconstructions_only_translations_are_judged() -> None:
    weights = AdaptationLossConfig(judge_reconstructions=False, feature_matching=0.0)
    real = {i: judgement(1.0, [0.0]) for i in Domain}
    fake = {(i, j): judgement(3.0 if i is j else 4.0, [0.0]) for i in Domain for j in Domain}
    for term in discriminator_terms(real, fake, weights).values():
        assert float(term) == pytest.approx((bce(1, True) + bce(4, False)) / 2)
    for term in generator_terms({d: fake[d] for d in TRANSLATIONS}, weights).values():
        assert float(term) == pytest.approx(bce(4, True) / 2)


# Networks


@pytest.mark.parametrize(("source", "target", "size"), PAIRS)
def test_shapes(source: str, target: str, size: int) -> None:
    made = config(source, target)
    networks, x = build_digit_autoencoders(made), images(source, target)
    features = networks.encoder({i: x[i] for i in Domain})
    mu, sd = gaussian_code(features[A])
    assert mu.shape == sd.shape == (3, 8 * made.model.channels, 1, 1)
    assert (sd > 0).all()
    out = adaptation_pass(networks, x, seeds)
    assert all(image.shape == x[j].shape == (3, x[j].shape[1], size, size) for (_, j), image in out.images.items())
    assert all(image.abs().max() <= 1 for image in out.images.values())
    judged = build_classifying_discriminators(made)({i: x[i] for i in Domain})
    assert all((len(j.logit[0]), j.classes.shape) == (1, (3, 10)) for j in judged.values())


def test_deep_layers_are_the_same_ones_and_first_ones_are_not() -> None:
    networks = build_classifying_discriminators(config()).eval()
    x = images().a
    assert not torch.equal(networks.classify(x, A), networks.classify(x, B))
    networks.private["b"].load_state_dict(networks.private["a"].state_dict())
    assert torch.equal(networks.classify(x, A), networks.classify(x, B))
    assert len(list(networks.parameters())) == len({id(p) for p in networks.parameters()}) == 2 * 2 + 2 + 2 + 2 * 2
    autoencoders = build_digit_autoencoders(config())
    assert isinstance(autoencoders.encoder, Encoder)
    assert sum(p.numel() for p in autoencoders.encoder.shared.parameters()) > 0


def test_same_init_starts_translations_as_reconstructions() -> None:
    made = config()
    made = replace(made, model=replace(made.model, same_init=True))
    networks, x = build_digit_autoencoders(made).eval(), images()
    out = adaptation_pass(networks, x, seeds)
    assert torch.equal(out.images[A, A], out.images[A, B])
    classifiers = build_classifying_discriminators(made).eval()
    assert torch.equal(classifiers.classify(x.a, A), classifiers.classify(x.a, B))
    with pytest.raises(ConfigError, match=r"model\.same_init: not between gray and color images"):
        replace(config("svhn", "mnist"), model=made.model)


def test_all_that_is_judged_at_once_is_judged_as_alone() -> None:
    networks, x = build_classifying_discriminators(config()).eval(), images()
    judged = judge(networks, {"one": (B, x.a), "two": (A, x.b), "three": (B, x.b[:2])})
    for key, (domain, batch) in {"one": (B, x.a), "two": (A, x.b), "three": (B, x.b[:2])}.items():
        alone: Any = networks({domain: batch})[domain]
        for part, expected in zip(judged[key], alone, strict=True):
            torch.testing.assert_close(part, expected)


# Distortion


def test_no_distortion_is_the_image() -> None:
    x = images().a
    assert distort(x, [1, 2, 3], 0.0) is x
    torch.testing.assert_close(distort(x, [1, 2, 3], 1e-9), x, atol=1e-5, rtol=0)


def test_a_distortion_follows_from_the_images_own_seed() -> None:
    x = images().a
    distorted = distort(x, [1, 2, 3], 0.1)
    assert not torch.equal(distorted[0], distort(x, [4, 2, 3], 0.1)[0])
    torch.testing.assert_close(distorted[[2, 0]], distort(x[[2, 0]], [3, 1], 0.1))


def test_a_distortion_moves_a_dot_by_some_pixels() -> None:
    x = torch.full((400, 1, 28, 28), -1.0)
    x[:, :, 13:15, 13:15] = 1.0
    light = distort(x, list(range(400)), 0.1) + 1
    places = (light * torch.arange(28.0)).sum((1, 2, 3)) / light.sum((1, 2, 3))
    assert abs(places.mean() - 13.5) < 0.3
    assert 1.0 < places.std() < 2.0, "0.1 of half of 28 pixels is 1.4"
