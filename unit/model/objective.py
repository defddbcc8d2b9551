"""The objective: one pass through encoders and generators, the weighted terms of equations 2 to 5, and later ones.

In all of it i is a domain and j the other one, and everything is filed under the domain of the image it came from:
`translation[i]` is x_i^{i→j}, which D_j judges. Only what D_i sees is filed under i: `Shown.fake[i]` is x_j^{j→i}.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unit.config import R1_INTERVAL, LossConfig
from unit.domains import Domain, PerDomain
from unit.model.augment import augmented
from unit.model.losses import adversarial, feature_matching, kl, l1, low_frequency, patch_nce, r1, relativistic
from unit.model.networks import Autoencoders, Discriminators
from unit.model.noise import gaussian_codes, patch_places
from unit.model.patches import PATCHES, PatchProjector

Logits = PerDomain[list[Tensor]]
Terms = dict[str, Tensor]


@dataclass(frozen=True)
class Noise:
    """All that is random in one pass and its terms; None where the weights do not need it."""

    code: PerDomain[Tensor]
    """η ~ N(0, I) of E_i(x_i), shaped like μ"""
    cycle: PerDomain[Tensor]
    """η ~ N(0, I) of E_j(x_i^{i→j})"""
    image: PerDomain[Tensor] | None = None
    """ε ~ N(0, I), shaped like the images, for x_i^{i→j} before it is encoded again"""
    patches: PerDomain[list[Tensor]] | None = None
    """for each layer of the encoders the places (B, P) where x_i and x_i^{i→j} are compared"""
    real: PerDomain[Tensor] | None = None
    """seeds (B,) of the augmentation of x_i"""
    fake: PerDomain[Tensor] | None = None
    """seeds (B,) of the augmentation of x_i^{i→j}"""

    def part(self, number: int, count: int) -> Noise:
        """Of part `number` of `count` equal parts of the batch."""

        def take(x: Tensor) -> Tensor:
            return x.chunk(count)[number]

        return Noise(
            self.code.map(take),
            self.cycle.map(take),
            self.image and self.image.map(take),
            self.patches and self.patches.map(lambda layers: [take(places) for places in layers]),
            self.real and self.real.map(take),
            self.fake and self.fake.map(take),
        )


def draw_noise(
    networks: Autoencoders,
    images: PerDomain[Tensor],
    weights: LossConfig,
    seeds: Callable[[str, Domain], Sequence[int]],
    of_codes: bool = True,
) -> Noise:
    """What a pass of images (B, 3, H, W) needs; `seeds(purpose, domain)` gives one for each of the domain's images.

    Without noise `of_codes` η is 0.
    """

    def gaussian(purpose: str, i: Domain, shape: tuple[int, int, int]) -> Tensor:
        return gaussian_codes(shape, seeds(purpose, i), images[i].device)

    def eta(purpose: str, i: Domain) -> Tensor:
        if of_codes:
            return gaussian(purpose, i, codes[i])
        return torch.zeros(len(images[i]), *codes[i], device=images[i].device)

    def places(i: Domain) -> list[Tensor]:
        height, width = images[i].shape[2:]
        sizes = [(height // stride) * (width // stride) for stride in networks.feature_strides]
        return patch_places(sizes, seeds("patches", i), PATCHES, images[i].device)

    def augmentation(purpose: str) -> PerDomain[Tensor] | None:
        return PerDomain.of(lambda i: torch.tensor(seeds(purpose, i))) if weights.augmentations else None

    codes = images.map(lambda x: networks.code_shape(*x.shape[2:]))
    return Noise(
        code=PerDomain.of(lambda i: eta("noise", i)),
        cycle=PerDomain.of(lambda i: eta("cycle noise", i)),
        image=PerDomain.of(lambda i: gaussian("image noise", i, (3, *images[i].shape[2:])))
        if weights.cycle_noise
        else None,
        patches=PerDomain.of(places) if weights.patch_nce else None,
        real=augmentation("augmentation of real"),
        fake=augmentation("augmentation of fake"),
    )


@dataclass(frozen=True)
class Patches:
    """Patches of one domain's images for PatchNCE: for each layer unit vectors (B, P, C)."""

    translated: list[Tensor]
    """of E_j(x_i^{i→j})"""
    original: list[Tensor]
    """of E_i(x_i), at the same places"""


@dataclass(frozen=True)
class Pass:
    """All that one pass makes of a batch; None where every weight that needs it is 0."""

    mu: PerDomain[Tensor]
    """E_i(x_i), the mean of q_i(z|x_i)"""
    reconstruction: PerDomain[Tensor] | None
    """x_i^{i→i} = G_i(z_i)"""
    translation: PerDomain[Tensor] | None
    """x_i^{i→j} = G_j(z_i)"""
    cycle_mu: PerDomain[Tensor] | None
    """E_j(x_i^{i→j}), the mean of q_j(z|x_i^{i→j})"""
    cycle: PerDomain[Tensor] | None
    """x_i^{i→j→i} = G_i(z), z drawn from q_j(z|x_i^{i→j})"""
    patches: PerDomain[Patches] | None = None
    """of x_i and x_i^{i→j}"""


def forward_pass(
    networks: Autoencoders,
    images: PerDomain[Tensor],
    noise: Noise,
    weights: LossConfig,
    projector: PatchProjector | None = None,
) -> Pass:
    """Encode, reconstruct, translate and cycle a batch (B, 3, H, W) of each domain, as far as the weights need it.

    With `cycle_noise` it is x_i^{i→j} + σε that is encoded again. `patch_nce` needs the projector.
    """
    encode_again = weights.lambda3 > 0 or weights.lambda4 > 0 or weights.patch_nce > 0
    translate = encode_again or weights.lambda0 > 0 or weights.low_frequency > 0
    mu, features = _encode(networks, images, weights)
    z = PerDomain.of(lambda i: mu[i] + noise.code[i])
    decoded = networks.decode(z, own=weights.lambda2 > 0, other=translate)
    cycle_mu = cycle = patches = None
    if encode_again and decoded.other is not None:
        # x_i^{i→j} looks like domain j: what came from i goes through E_j, and back through G_i.
        cycle_mu, cycle_features = _encode(networks, _noisy(decoded.other, noise, weights).swapped(), weights)
        cycle_mu = cycle_mu.swapped()
        if weights.lambda4 > 0:
            cycle_z = PerDomain.of(lambda i: cycle_mu[i] + noise.cycle[i])
            cycle = networks.decode(cycle_z, own=True, other=False).own
        if features and cycle_features:
            assert noise.patches
            assert projector
            # Features go through the perceptrons of the encoder that made them.
            translated = projector(cycle_features, noise.patches.swapped()).swapped()
            original = projector(features, noise.patches)
            patches = PerDomain.of(lambda i: Patches(translated[i], original[i]))
    return Pass(mu, decoded.own, decoded.other, cycle_mu, cycle, patches)


def _encode(
    networks: Autoencoders, images: PerDomain[Tensor], weights: LossConfig
) -> tuple[PerDomain[Tensor], PerDomain[list[Tensor]] | None]:
    """μ, and the layers before it where they are compared."""
    if not weights.patch_nce:
        return networks.encode(images), None
    features = networks.encode_by_layer(images)
    return features.map(lambda layers: layers[-1]), features


def _noisy(translation: PerDomain[Tensor], noise: Noise, weights: LossConfig) -> PerDomain[Tensor]:
    if not weights.cycle_noise:
        return translation
    epsilon = noise.image
    assert epsilon
    return PerDomain.of(lambda i: translation[i] + weights.cycle_noise * epsilon[i])


def translations(networks: Autoencoders, images: PerDomain[Tensor], noise: Noise) -> PerDomain[Tensor]:
    """x_i^{i→j} alone, as `forward_pass` makes it."""
    mu = networks.encode(images)
    z = PerDomain.of(lambda i: mu[i] + noise.code[i])
    translation = networks.decode(z, own=False, other=True).other
    assert translation
    return translation


def autoencoder_terms(out: Pass, images: PerDomain[Tensor], weights: LossConfig) -> Terms:
    """The weighted terms of E and G but for those of D, e.g. ``{"kl_a": λ1·KL(q_a(z|x_a)), …}``.

    A weight of 0 leaves its term out.
    """
    terms: Terms = {}
    for i in Domain:
        if weights.lambda1:  # equation 2
            terms[f"kl_{i}"] = weights.lambda1 * kl(out.mu[i])
        if weights.lambda2 and out.reconstruction:  # equation 2
            terms[f"reconstruction_{i}"] = weights.lambda2 * l1(out.reconstruction[i], images[i])
        if weights.lambda3 and out.cycle_mu:  # equation 5, both of its KL terms
            terms[f"cycle_kl_{i}"] = weights.lambda3 * (kl(out.mu[i]) + kl(out.cycle_mu[i]))
        if weights.lambda4 and out.cycle:  # equation 5
            terms[f"cycle_{i}"] = weights.lambda4 * l1(out.cycle[i], images[i])
        if weights.low_frequency and out.translation:
            terms[f"low_frequency_{i}"] = weights.low_frequency * low_frequency(out.translation[i], images[i])
        if weights.patch_nce and out.patches:
            compared = patch_nce(out.patches[i].translated, out.patches[i].original)
            terms[f"patch_nce_{i}"] = weights.patch_nce * compared
    return terms


@dataclass(frozen=True)
class Shown:
    """What the discriminators see of a batch, each filed under its own domain."""

    real: PerDomain[Tensor]
    """x_i"""
    fake: PerDomain[Tensor]
    """x_j^{j→i}"""


def show(images: PerDomain[Tensor], translation: PerDomain[Tensor], noise: Noise, weights: LossConfig) -> Shown:
    """Images and translations for the discriminators, augmented where the weights say so."""

    def change(x: PerDomain[Tensor], seeds: PerDomain[Tensor] | None) -> PerDomain[Tensor]:
        if not weights.augmentations:
            return x
        assert seeds
        return PerDomain.of(lambda i: augmented(x[i], seeds[i].tolist(), weights.augmentations))

    return Shown(change(images, noise.real), change(translation, noise.fake).swapped())


def generator_terms(fake: Logits, weights: LossConfig, real: Logits | None = None) -> Terms:
    """Equation 4 for E and G, weighted: `fake[i]` is D_i's verdict on x_j^{j→i}; G_i wants it to be "real".

    `real[i]`, D_i's verdict on x_i, is what a relativistic one is compared with.
    """

    def fooled(i: Domain) -> Tensor:
        if weights.adversarial == "relativistic":
            assert real
            return relativistic(fake[i], real[i])
        return adversarial(fake[i], True, "linear" if weights.adversarial == "hinge" else weights.adversarial)

    return {f"adversarial_{i}": weights.lambda0 * fooled(i) for i in Domain}


def discriminator_terms(real: Logits, fake: Logits, weights: LossConfig) -> Terms:
    """Equation 4 for D, weighted: `real[i]` is D_i's verdict on x_i, `fake[i]` on x_j^{j→i}."""

    def told_apart(i: Domain) -> Tensor:
        if weights.adversarial == "relativistic":
            return relativistic(real[i], fake[i])
        return adversarial(real[i], True, weights.adversarial) + adversarial(fake[i], False, weights.adversarial)

    return {f"discriminator_{i}": weights.lambda0 * told_apart(i) for i in Domain}


def r1_terms(discriminators: Discriminators, real: PerDomain[Tensor], weights: LossConfig) -> Terms:
    """The penalty on D_i's gradient at real images as it sees them, in fp32, weighted for the steps without it."""
    real = real.map(lambda x: x.detach().requires_grad_())
    with torch.autocast(real.a.device.type, enabled=False):
        logits = discriminators(real)
        return {f"r1_{i}": weights.r1 * R1_INTERVAL * r1(real[i], logits[i]) for i in Domain}


def judged_terms(discriminators: Discriminators, shown: Shown, weights: LossConfig) -> Terms:
    """All terms of E and G that come from the discriminators, which are to be frozen: `generator_terms`, and more."""
    compare_features = weights.feature_matching > 0
    if not compare_features and weights.adversarial != "relativistic":
        return generator_terms(discriminators(shown.fake), weights)
    with torch.no_grad():
        real = discriminators.by_layer(shown.real)
    fake = discriminators.by_layer(shown.fake)
    terms = generator_terms(fake.map(_logits), weights, real.map(_logits))
    for i in Domain if compare_features else ():
        compared = feature_matching(_features(fake[i]), _features(real[i]))
        terms[f"feature_matching_{i}"] = weights.feature_matching * compared
    return terms


def _logits(scales: list[list[Tensor]]) -> list[Tensor]:
    return [layers[-1] for layers in scales]


def _features(scales: list[list[Tensor]]) -> list[Tensor]:
    return [x for layers in scales for x in layers[:-1]]


def total(terms: Mapping[str, Tensor]) -> Tensor:
    """The objective: the sum of its weighted terms."""
    return torch.stack(list(terms.values())).sum()
