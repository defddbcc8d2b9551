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
from unit.model.augment import augmented
from unit.model.patches import build_patch_projector

from unit.config import R1_INTERVAL, LossConfig, ModelConfig
from unit.domains import Domain, PerDomain
from unit.model.networks import (
    Autoencoders,
    Discriminators,
    Encoder,
    Generator,
    build_autoencoders,
    build_discriminators,
)
from unit.model.noise import gaussian_codes
from unit.model.objective import (
    Noise,
    Shown,
    autoencoder_terms,
    discriminator_terms,
    draw_noise,
    forward_pass,
    generator_terms,
    judged_terms,
    r1_terms,
    show,
    total,
    translations,
)
from unit.seeds import seed_for

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

    def by_layer(self, x: Tensor) -> list[list[Tensor]]:
        return [[10 * self.scale * x, self.scale * x]]

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
        widths=[3],
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


# -- what came after 2017 ----------------------------------------------------------------------------------------------


def hands(terms: dict[str, Tensor]) -> dict[str, float]:
    return {name: term.item() for name, term in terms.items()}


def softplus(x: float) -> float:
    return math.log(1 + math.exp(x))


def test_low_frequency_by_hand() -> None:
    """Also where nothing else needs the translations."""
    for weights in (replace(WEIGHTS, low_frequency=13), LossConfig(0, 1, 0, 0, 0, low_frequency=13)):
        terms = autoencoder_terms(forward_pass(networks(), X, NOISE, weights), X, weights)
        found = {name: value for name, value in hands(terms).items() if name.startswith("low_frequency")}
        assert found == pytest.approx({"low_frequency_a": 13 * (9 - 1), "low_frequency_b": 13 * (28 - 2)})


def test_noise_in_the_cycle_by_hand() -> None:
    """½·2 is added to 9, ½·4 to 28, but only for the encoders."""
    weights = replace(WEIGHTS, cycle_noise=0.5)
    out = forward_pass(networks(), X, replace(NOISE, image=constant(2, 4)), weights)
    assert [value(t) for t in out.translation] == [9, 28]
    assert [value(t) for t in out.cycle_mu] == [9 + 1 + 10, 28 + 2 + 1]
    assert [value(t) for t in out.cycle] == [2 * (20 + 4), 3 * (31 + 8)]


class Spy(nn.Module):
    """Marks which head features went through (100 or 1000 times) and which places they were taken at (plus)."""

    def forward(self, features: PerDomain[list[Tensor]], places: PerDomain[list[Tensor]]) -> PerDomain[list[Tensor]]:
        factor = PerDomain(100, 1000)
        return PerDomain.of(
            lambda i: [factor[i] * x + at for x, at in zip(features[i], places[i], strict=True)],
        )


def layered() -> Autoencoders:
    """The same networks, the encoders in two steps: 2x, then half of it and 1 more; 4x, then a quarter and 10 more."""
    shared = nn.Identity()
    return Autoencoders(
        PerDomain(
            Encoder(nn.Sequential(Affine(2), Affine(1 / 2, 1)), shared),
            Encoder(nn.Sequential(Affine(4), Affine(1 / 4, 10)), shared),
        ),
        PerDomain(Generator(shared, Affine(2)), Generator(shared, Affine(3))),
        widths=[3],
    )


def test_what_patch_nce_compares_by_hand() -> None:
    """E_a's layers of 1 and E_b's of 9, at the places of a; E_b's of 2 and E_a's of 28, at those of b."""
    places = PerDomain.of(lambda i: [torch.tensor({"a": 7, "b": 8}[i])] * 2)
    weights = replace(WEIGHTS, patch_nce=1)
    out = forward_pass(layered(), X, replace(NOISE, patches=places), weights, Spy())
    assert [value(t) for t in out.patches.a.original] == [100 * 2 + 7, 100 * 2 + 7]
    assert [value(t) for t in out.patches.a.translated] == [1000 * 36 + 7, 1000 * 19 + 7]
    assert [value(t) for t in out.patches.b.original] == [1000 * 8 + 8, 1000 * 12 + 8]
    assert [value(t) for t in out.patches.b.translated] == [100 * 56 + 8, 100 * 29 + 8]
    plain = forward_pass(networks(), X, NOISE, WEIGHTS)
    for name in ("mu", "reconstruction", "translation", "cycle_mu", "cycle"):
        assert [value(t) for t in getattr(out, name)] == [value(t) for t in getattr(plain, name)]


def test_the_later_adversarial_terms_by_hand() -> None:
    """D_a says 1 of x_a and 28 of what came from B, D_b says -2 of x_b and -9 of what came from A."""
    shown = Shown(X, constant(28, 9))
    real, fake = discriminators().compare(shown.real, shown.fake)
    weights = replace(WEIGHTS, adversarial="hinge")
    assert hands(discriminator_terms(real, fake, weights)) == pytest.approx(
        {"discriminator_a": 7 * (0 + 29), "discriminator_b": 7 * (3 + 0)}
    )
    assert hands(judged_terms(discriminators(), shown, weights)) == pytest.approx(
        {"adversarial_a": 7 * -28, "adversarial_b": 7 * 9}
    )
    weights = replace(WEIGHTS, adversarial="relativistic")
    assert hands(discriminator_terms(real, fake, weights)) == pytest.approx(
        {"discriminator_a": 7 * softplus(28 - 1), "discriminator_b": 7 * softplus(-9 + 2)}
    )
    assert hands(judged_terms(discriminators(), shown, weights)) == pytest.approx(
        {"adversarial_a": 7 * softplus(1 - 28), "adversarial_b": 7 * softplus(-2 + 9)}
    )
    assert hands(judged_terms(discriminators(), shown, WEIGHTS)) == hands(generator_terms(fake, WEIGHTS))


@pytest.mark.parametrize("kind", ["least_squares", "relativistic"])
def test_feature_matching_by_hand(kind: str) -> None:
    weights = replace(WEIGHTS, feature_matching=0.5, adversarial=kind)
    terms = hands(judged_terms(discriminators(), Shown(X, constant(28, 9)), weights))
    without = hands(judged_terms(discriminators(), Shown(X, constant(28, 9)), replace(weights, feature_matching=0)))
    assert terms == pytest.approx(
        without | {"feature_matching_a": 0.5 * 10 * (28 - 1), "feature_matching_b": 0.5 * 10 * (9 - 2)}
    )


class Square(OneScale):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.scale * x.square() / 2]


def test_r1_by_hand() -> None:
    """∇ of D_a is 2x = 2 in each of 48 places, that of D_b 3x = 6; each place is a patch."""
    squares = Discriminators(PerDomain(Square(2), Square(3)))
    terms = r1_terms(squares, X, replace(WEIGHTS, r1=0.1))
    assert hands(terms) == pytest.approx(
        {f"r1_{i}": 0.1 * R1_INTERVAL * slope**2 / 2 for i, slope in (("a", 2), ("b", 6))}
    )
    assert not X.a.requires_grad


def test_what_is_shown_by_hand() -> None:
    translation, weights = constant(9, 28), replace(WEIGHTS, augmentation="color,cutout")
    seeds = PerDomain(torch.tensor([1, 2]), torch.tensor([3, 4])), PerDomain(torch.tensor([5, 6]), torch.tensor([7, 8]))
    shown = show(X, translation, replace(NOISE, real=seeds[0], fake=seeds[1]), weights)
    kinds = ("color", "cutout")
    assert torch.equal(shown.real.a, augmented(X.a, [1, 2], kinds))
    assert torch.equal(shown.real.b, augmented(X.b, [3, 4], kinds))
    assert torch.equal(shown.fake.a, augmented(translation.b, [7, 8], kinds))
    assert torch.equal(shown.fake.b, augmented(translation.a, [5, 6], kinds))
    plain = show(X, translation, NOISE, WEIGHTS)
    assert (plain.real.a, plain.fake.a, plain.fake.b) == (X.a, translation.b, translation.a)


# -- with the networks themselves --------------------------------------------------------------------------------------

MODEL = ModelConfig(
    channels=4, residual_blocks=2, initialization="kaiming", discriminator_layers=2, discriminator_scales=2
)
ALL = LossConfig(
    adversarial="relativistic",
    r1=1.0,
    augmentation="color,translation,cutout",
    feature_matching=1.0,
    low_frequency=1.0,
    patch_nce=1.0,
    cycle_noise=0.1,
)


def seeds(purpose: str, domain: Domain) -> list[int]:
    return [seed_for(3, purpose, domain, place) for place in range(4)]


def make_images() -> PerDomain[Tensor]:
    return PerDomain.of(lambda _: torch.rand(4, 3, 16, 24) * 2 - 1)


def test_without_later_terms_nothing_more_is_drawn() -> None:
    model = build_autoencoders(MODEL)
    noise = draw_noise(model, make_images(), LossConfig(), seeds)
    for i in Domain:
        shape, device = model.code_shape(16, 24), torch.device("cpu")
        assert torch.equal(noise.code[i], gaussian_codes(shape, seeds("noise", i), device))
        assert torch.equal(noise.cycle[i], gaussian_codes(shape, seeds("cycle noise", i), device))
    assert (noise.image, noise.patches, noise.real, noise.fake) == (None, None, None, None)
    part = noise.part(1, 2)
    assert (part.image, part.patches, part.real, part.fake) == (None, None, None, None)


def test_all_that_is_drawn_differs_and_is_cut_into_parts() -> None:
    asked: list[tuple[str, Domain]] = []
    noise = draw_noise(build_autoencoders(MODEL), make_images(), ALL, lambda *what: asked.append(what) or seeds(*what))
    assert len(asked) == len(set(asked)) == 2 * 6, "each purpose has seeds of its own"
    assert [tuple(places.shape) for places in noise.patches.a] == [(4, n) for n in (256, 96, 24, 24)]
    drawn = [*noise.code, *noise.cycle, *noise.image, *noise.real, *noise.fake, *noise.patches.a, *noise.patches.b]
    assert len({row.double().flatten()[:9].std().item() for x in drawn if x.ndim > 1 for row in x}) == 14 * 4
    assert len({seed for pair in (noise.real, noise.fake) for x in pair for seed in x.tolist()}) == 16
    parts = [noise.part(k, 2) for k in range(2)]
    for name in ("code", "cycle", "image", "real", "fake"):
        for i in Domain:
            assert torch.equal(torch.cat([getattr(part, name)[i] for part in parts]), getattr(noise, name)[i])
    for layer, places in enumerate(noise.patches.b):
        assert torch.equal(torch.cat([part.patches.b[layer] for part in parts]), places)


def test_the_translations_alone_are_those_of_a_pass() -> None:
    model, x = build_autoencoders(MODEL), make_images()
    noise = draw_noise(model, x, ALL, seeds)
    alone = translations(model, x, noise)
    out = forward_pass(model, x, noise, ALL, build_patch_projector(model)).translation
    for i in Domain:
        torch.testing.assert_close(alone[i], out[i])


def all_terms(
    model: Autoencoders, judges: Discriminators, projector: nn.Module, x: PerDomain[Tensor], noise: Noise
) -> dict[str, Tensor]:
    out = forward_pass(model, x, noise, ALL, projector)
    shown = show(x, out.translation, noise, ALL)
    return (
        autoencoder_terms(out, x, ALL)
        | discriminator_terms(*judges.compare(shown.real, shown.fake), ALL)
        | r1_terms(judges, shown.real, ALL)
        | judged_terms(judges, shown, ALL)
    )


def test_the_terms_of_a_batch_are_the_means_of_its_parts() -> None:
    model, judges = build_autoencoders(MODEL), build_discriminators(MODEL)
    projector = build_patch_projector(model)
    x = make_images().map(Tensor.double)
    noise = draw_noise(model, x, ALL, seeds)
    for network in (model, judges, projector):
        network.double()
    whole = all_terms(model, judges, projector, x, noise)
    parts = [
        all_terms(model, judges, projector, x.map(lambda t, k=k: t.chunk(4)[k]), noise.part(k, 4)) for k in range(4)
    ]
    names = ("kl", "reconstruction", "cycle_kl", "cycle", "low_frequency", "patch_nce", "discriminator", "r1")
    names += ("adversarial", "feature_matching")
    assert whole.keys() == {f"{name}_{i}" for name in names for i in Domain}
    for name, term in whole.items():
        assert torch.stack([part[name] for part in parts]).mean().item() == pytest.approx(term.item(), rel=1e-9), name


def test_patch_nce_equals_what_is_written_out() -> None:
    model, x = build_autoencoders(MODEL), make_images()
    projector = build_patch_projector(model)
    weights = LossConfig(patch_nce=2.0)
    noise = draw_noise(model, x, weights, seeds)
    out = forward_pass(model, x, noise, weights, projector)
    terms = autoencoder_terms(out, x, weights)
    for i in Domain:
        layers = [model.encode_by_layer(pair) for pair in (x, out.translation.swapped())]
        losses = []
        for layer in range(len(noise.patches.a)):
            at = noise.patches[i][layer]
            key, query = (
                projector.heads[domain][layer](features[domain][layer].flatten(2).mT[torch.arange(4)[:, None], at])
                for domain, features in ((i, layers[0]), (i.other, layers[1]))
            )
            cosine = torch.cosine_similarity(query[:, :, None], key[:, None], dim=3)
            own = torch.arange(at.shape[1]).expand(4, -1)
            losses.append(nn.functional.cross_entropy((cosine / 0.07).mT, own))
        assert terms[f"patch_nce_{i}"].item() == pytest.approx(2 * sum(losses).item() / 4, rel=1e-5)


def test_patch_nce_moves_the_heads_and_the_networks() -> None:
    model, x = build_autoencoders(MODEL), make_images()
    projector = build_patch_projector(model)
    weights = LossConfig(0, 1, 0, 0, 0, patch_nce=1.0)
    out = forward_pass(model, x, draw_noise(model, x, weights, seeds), weights, projector)
    terms = autoencoder_terms(out, x, weights)
    assert terms.keys() == {"kl_a", "kl_b", "patch_nce_a", "patch_nce_b"}
    (terms["patch_nce_a"] + terms["patch_nce_b"]).backward()
    for network in (model, projector):
        assert all(p.grad is not None and p.grad.norm() > 0 for n, p in network.named_parameters() if "weight" in n)


def test_what_e_and_g_learn_from_frozen_discriminators_leaves_the_real_images_alone() -> None:
    judges = build_discriminators(MODEL).requires_grad_(False)
    shown = Shown(make_images().map(Tensor.requires_grad_), make_images().map(Tensor.requires_grad_))
    total(judged_terms(judges, shown, ALL)).backward()
    assert all(x.grad is None for x in shown.real)
    assert all(x.grad.norm() > 0 for x in shown.fake)


def test_r1_is_in_fp32_under_autocast_too() -> None:
    judges, x = build_discriminators(MODEL), make_images()
    exact = r1_terms(judges, x, ALL)
    with torch.autocast("cpu", torch.bfloat16):
        judges(x)
        found = r1_terms(judges, x, ALL)
    assert all(torch.equal(term, exact[name]) for name, term in found.items())
    total(found).backward()
    assert all(p.grad.norm() > 0 for p in judges.parameters() if p.ndim == 4)
