"""The paper's objective, against numbers worked out by hand in affine.py."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.model.affine import (
    NOISE,
    SMALL,
    WEIGHTS,
    X,
    autoencoders,
    constant,
    discriminators,
    make_images,
    make_microbatch,
    seeds,
    value,
    values,
)
from unit.config import LossConfig
from unit.domains import Domain, PerDomain
from unit.model.extras import LossExtras
from unit.model.losses import Logits
from unit.model.networks import build_autoencoders, build_discriminators
from unit.model.noise import draw_noise, gaussian
from unit.model.objective import (
    Microbatch,
    autoencoder_terms,
    discriminator_terms,
    forward_pass,
    generator_adversarial_terms,
    total,
    translate,
)


def test_forward_pass_by_hand() -> None:
    out = forward_pass(autoencoders(), X, NOISE)
    assert [value(x) for x in out.mu] == [2, 12]
    assert [value(x) for x in out.reconstruction] == [6, 42]
    assert [value(x) for x in out.translation] == [9, 28]
    assert out.cycle_mu
    assert [value(x) for x in out.cycle_mu] == [19, 29]
    assert out.cycle
    assert [value(x) for x in out.cycle] == [46, 111]


def test_the_cycle_encodes_perturbed_translations_and_nothing_else_does() -> None:
    """1 is added to 9, 2 to 28."""
    out = forward_pass(autoencoders(), X, NOISE, lambda x: PerDomain(x.a + 1, x.b + 2))
    assert [value(x) for x in out.translation] == [9, 28]
    assert out.cycle_mu
    assert [value(x) for x in out.cycle_mu] == [9 + 1 + 10, 28 + 2 + 1]
    assert out.cycle
    assert [value(x) for x in out.cycle] == [2 * (20 + 4), 3 * (31 + 8)]


def test_autoencoder_terms_by_hand() -> None:
    terms = autoencoder_terms(forward_pass(autoencoders(), X, NOISE), X, WEIGHTS)
    assert values(terms) == pytest.approx(
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
    assert total(terms).item() == pytest.approx(sum(values(terms).values()))


@pytest.mark.parametrize(
    ("adversarial", "d_a", "d_b", "g_a", "g_b"),
    [
        ("least_squares", (1 - 1) ** 2 + 28**2, (-2 - 1) ** 2 + (-9) ** 2, (28 - 1) ** 2, (-9 - 1) ** 2),
        ("hinge", 0 + 29, 3 + 0, -28, 9),
        ("bce", math.log(1 + math.exp(-1)) + 28, math.log(1 + math.exp(2)) + math.log(1 + math.exp(-9)), 0, 9.00012),
        ("relativistic", 27, math.log(1 + math.exp(-9 + 2)), math.log(1 + math.exp(-27)), math.log(1 + math.exp(7))),
    ],
)
def test_adversarial_terms_by_hand(adversarial: str, d_a: float, d_b: float, g_a: float, g_b: float) -> None:
    """D_a gives 1 on x_a and 28 on x_b→a, D_b gives -2 on x_b and -9 on x_a→b."""
    weights = replace(WEIGHTS, adversarial=adversarial)
    fake = forward_pass(autoencoders(), X, NOISE).translation.swapped()
    assert [value(x) for x in fake] == [28, 9]
    d_terms = values(discriminator_terms(*discriminators().real_and_fake_logits(X, fake), weights))
    assert d_terms == pytest.approx({"discriminator_a": 7 * d_a, "discriminator_b": 7 * d_b}, rel=1e-5)
    g_terms = values(generator_adversarial_terms(discriminators(), X, fake, weights))
    assert g_terms == pytest.approx({"adversarial_a": 7 * g_a, "adversarial_b": 7 * g_b}, rel=1e-5, abs=1e-5)


def test_binary_cross_entropy_terms_by_hand() -> None:
    """σ(log 3) = 3/4."""
    weights = replace(WEIGHTS, adversarial="bce")
    fake = constant(math.log(3), math.log(3))  # D_b gives -log 3
    real_logits: PerDomain[Logits] = constant(0, 0).map(lambda x: [x])
    terms = values(discriminator_terms(real_logits, discriminators()(fake), weights))
    assert terms["discriminator_a"] == pytest.approx(7 * (math.log(2) + math.log(4)), rel=1e-6)
    assert terms["discriminator_b"] == pytest.approx(7 * (math.log(2) + math.log(4 / 3)), rel=1e-6)
    terms = values(generator_adversarial_terms(discriminators(), X, fake, weights))
    assert terms["adversarial_a"] == pytest.approx(7 * math.log(4 / 3), rel=1e-6)
    assert terms["adversarial_b"] == pytest.approx(7 * math.log(4), rel=1e-6)


@pytest.mark.parametrize(
    ("weight", "term"),
    [("lambda1", "kl"), ("lambda2", "reconstruction"), ("lambda3", "cycle_kl"), ("lambda4", "cycle")],
)
def test_a_weight_of_0_omits_its_own_term_only(weight: str, term: str) -> None:
    out = forward_pass(autoencoders(), X, NOISE)
    full = autoencoder_terms(out, X, WEIGHTS)
    terms = autoencoder_terms(out, X, replace(WEIGHTS, **{weight: 0.0}))
    assert full.keys() - terms.keys() == {f"{term}_{i}" for i in Domain}
    assert all(torch.equal(value, full[name]) for name, value in terms.items())


@pytest.mark.parametrize("cycle", [True, False])
def test_without_a_cycle_nothing_is_encoded_or_decoded_again(cycle: bool) -> None:
    networks, runs = autoencoders(), {"encoder": 0, "generator": 0}
    for name in runs:
        module = getattr(networks, name).private["a"]
        module.register_forward_hook(lambda *_, name=name: runs.__setitem__(name, runs[name] + 1))
    out = forward_pass(networks, X, NOISE, cycle=cycle)
    assert runs == ({"encoder": 2, "generator": 2} if cycle else {"encoder": 1, "generator": 1})
    assert (out.cycle is not None, out.cycle_mu is not None) == (cycle, cycle)
    assert [value(x) for x in out.translation] == [9, 28]
    assert autoencoder_terms(out, X, WEIGHTS).keys() >= {"kl_a", "reconstruction_b"}


# -- with real networks ------------------------------------------------------------------------------------------------

ALL = LossConfig(
    adversarial="relativistic",
    r1=1.0,
    augmentation="color,translation,cutout",
    feature_matching=1.0,
    low_frequency=1.0,
    patch_nce=1.0,
    cycle_noise=0.1,
)


def test_the_codes_noise_has_seeds_of_its_own_for_each_encoding_and_domain() -> None:
    networks, asked = build_autoencoders(SMALL), []

    def recorded(purpose: str, domain: Domain) -> list[int]:
        asked.append((purpose, domain))
        return seeds(purpose, domain)

    noise = draw_noise(networks, make_images(), recorded)
    assert sorted(asked) == [(purpose, i) for purpose in ("cycle noise", "noise") for i in Domain]
    shape, device = networks.code_shape(16, 24), torch.device("cpu")
    for i in Domain:
        assert torch.equal(noise.code[i], gaussian(shape, seeds("noise", i), device))
        assert torch.equal(noise.cycle[i], gaussian(shape, seeds("cycle noise", i), device))
    draws = [image.std().item() for pair in (noise.code, noise.cycle) for x in pair for image in x]
    assert len(set(draws)) == 16, "no two are alike"


def test_without_sampling_the_noise_is_0() -> None:
    networks = build_autoencoders(SMALL)
    noise = draw_noise(networks, make_images(), seeds, sample=False)
    for eta in (*noise.code, *noise.cycle):
        assert eta.shape == (4, *networks.code_shape(16, 24))
        assert not eta.any()


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_translate_equals_the_translations_of_a_pass(precision: torch.dtype) -> None:
    networks, x = build_autoencoders(SMALL), make_images()
    noise = draw_noise(networks, x, seeds)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        alone, out = translate(networks, x, noise), forward_pass(networks, x, noise)
    for i in Domain:
        torch.testing.assert_close(alone[i], out.translation[i])


def test_terms_of_a_batch_are_the_means_over_its_microbatches() -> None:
    """So gradient accumulation computes what one batch does; with every ingredient."""
    networks, d = build_autoencoders(SMALL).double(), build_discriminators(SMALL).double()
    extras = LossExtras(ALL, networks).double()
    images = make_images().map(Tensor.double)

    def terms(part: slice) -> dict[str, Tensor]:
        x = images.map(lambda x: x[part])
        noise = draw_noise(networks, x, lambda *key: seeds(*key)[part])
        batch = Microbatch(x, lambda *key: seeds(*key)[part], noise, step=16)
        batch.out = forward_pass(networks, x, batch.noise, lambda x: extras.perturb(x, batch.seeds))
        real, fake = extras.discriminator_inputs(x, batch.out.translation, batch.seeds)
        batch.d_real, batch.d_fake = real, fake
        return (
            autoencoder_terms(batch.out, x, ALL)
            | discriminator_terms(*d.real_and_fake_logits(real, fake), ALL)
            | extras.discriminator_terms(d, batch)
            | generator_adversarial_terms(d, real, fake, ALL)
            | extras.generator_terms(networks, d, batch)
        )

    batch_terms = terms(slice(None))
    microbatch_terms = [terms(slice(k, k + 1)) for k in range(4)]
    names = ("kl", "reconstruction", "cycle_kl", "cycle", "low_frequency", "patch_nce", "discriminator", "r1")
    names += ("adversarial", "feature_matching")
    assert batch_terms.keys() == {f"{name}_{i}" for name in names for i in Domain}
    for name, term in batch_terms.items():
        mean = torch.stack([terms[name] for terms in microbatch_terms]).mean()
        assert mean.item() == pytest.approx(term.item(), rel=1e-9), name


@pytest.mark.parametrize("adversarial", ["bce", "least_squares", "hinge", "relativistic"])
def test_generators_learn_from_frozen_discriminators_through_the_fake_images_only(adversarial: str) -> None:
    d = build_discriminators(SMALL).requires_grad_(False)
    real, fake = (make_images().map(Tensor.requires_grad_) for _ in range(2))
    batch = make_microbatch()
    batch.d_real, batch.d_fake = real, fake
    weights = LossConfig(adversarial=adversarial, feature_matching=1.0)
    terms = generator_adversarial_terms(d, real, fake, weights)
    terms |= LossExtras(weights, autoencoders()).generator_terms(autoencoders(), d, batch)
    total(terms).backward()
    assert all(x.grad is None for x in real)
    assert all(x.grad is not None and x.grad.norm() > 0 for x in fake)
    assert all(p.grad is None for p in d.parameters())
