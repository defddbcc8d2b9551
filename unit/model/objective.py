"""The paper's objective: one forward pass, and its six weighted terms per domain.

New terms go into `unit.model.extras`; this file is the paper's alone.

i is a domain and j the other one. Everything is indexed by the domain of the image it came from: `translation[i]` is
x_i^{i→j}, which D_j judges. Only what D_i sees is indexed by i: `fake[i]` is x_j^{j→i}.

L_VAE is equation 2 of the paper, L_GAN equation 4, L_CC equation 5. As there, D_i judges translations only, never
reconstructions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from unit.config import LossConfig
from unit.domains import Domain, PerDomain
from unit.model.losses import ADVERSARIAL, Logits, kl, l1
from unit.model.networks import RECONSTRUCTIONS, TRANSLATIONS, Autoencoders, Discriminators
from unit.model.noise import Noise, Seeds

Terms: TypeAlias = dict[str, Tensor]
"""Weighted terms by name; their sum is the objective."""


@dataclass(frozen=True)
class ForwardPass:
    """Everything that one forward pass computes from a batch."""

    mu: PerDomain[Tensor]
    """E_i(x_i), the mean of q_i(z|x_i)"""
    reconstruction: PerDomain[Tensor]
    """x_i^{i→i} = G_i(z_i)"""
    translation: PerDomain[Tensor]
    """x_i^{i→j} = G_j(z_i)"""
    cycle_mu: PerDomain[Tensor] | None = None
    """E_j(x_i^{i→j}), the mean of q_j(z|x_i^{i→j}); None without a cycle"""
    cycle: PerDomain[Tensor] | None = None
    """x_i^{i→j→i} = G_i(z), z drawn from q_j(z|x_i^{i→j}); None without a cycle"""


@dataclass
class Microbatch:
    """Images that are computed at once, and what one step computes from them."""

    images: PerDomain[Tensor]
    """x_i: (B, 3, H, W) in [-1, 1]"""
    seeds: Seeds
    """seeds of every random draw for these images"""
    noise: Noise
    out: ForwardPass | None = None
    terms: Terms = field(default_factory=dict)
    """loss terms of E and G"""
    step: int = 0
    """number of the update that it belongs to, from 1"""
    d_real: PerDomain[Tensor] | None = None
    """D_i's input from x_i"""
    d_fake: PerDomain[Tensor] | None = None
    """D_i's input from x_j^{j→i}; without gradients for D's update"""


def forward_pass(
    networks: Autoencoders,
    images: PerDomain[Tensor],
    noise: Noise,
    perturb: Callable[[PerDomain[Tensor]], PerDomain[Tensor]] = lambda translation: translation,
    *,
    cycle: bool = True,
) -> ForwardPass:
    """Encode, reconstruct, translate and cycle a batch of images (Figure 1 of the paper).

    Args:
        networks: E and G.
        images: (B, 3, H, W) in [-1, 1].
        noise: drawn once for each encoding; one z feeds reconstruction and translation.
        perturb: applied to translations before they are encoded again.
        cycle: whether any term needs the cycle.
    """
    E, G = networks.encoder, networks.generator  # noqa: N806 - the paper's names
    mu = PerDomain(**E({i: images[i] for i in Domain}))  # q_i(z_i|x_i) = N(μ_i, I)
    z = {i: mu[i] + noise.code[i] for i in Domain}
    x = G(z, RECONSTRUCTIONS + TRANSLATIONS)  # x[i, j] = x_i^{i→j} = G_j(z_i)
    reconstruction = PerDomain.of(lambda i: x[i, i])
    translation = PerDomain.of(lambda i: x[i, i.other])
    if not cycle:
        return ForwardPass(mu, reconstruction, translation)
    perturbed = perturb(translation)
    cycle_mu = E({j: perturbed[j.other] for j in Domain})  # q_j(z|x_i^{i→j}): a translation into j goes through E_j
    # A dict's order is the batch's order in E and G; it decides rounding, so x_i's order is kept.
    cycle_z = {i.other: cycle_mu[i.other] + noise.cycle[i] for i in Domain}
    back = G(cycle_z, TRANSLATIONS)  # back[j, i] = x_i^{i→j→i} = G_i(z)
    return ForwardPass(
        mu,
        reconstruction,
        translation,
        PerDomain.of(lambda i: cycle_mu[i.other]),
        PerDomain.of(lambda i: back[i.other, i]),
    )


def translate(networks: Autoencoders, images: PerDomain[Tensor], noise: Noise) -> PerDomain[Tensor]:
    """Return x_i^{i→j} alone, as `forward_pass` computes it."""
    mu = networks.encoder({i: images[i] for i in Domain})
    x = networks.generator({i: mu[i] + noise.code[i] for i in Domain}, TRANSLATIONS)
    return PerDomain.of(lambda i: x[i, i.other])


def autoencoder_terms(out: ForwardPass, images: PerDomain[Tensor], weights: LossConfig) -> Terms:
    """Return the weighted L_VAE and L_CC of E and G, e.g. ``{"kl_a": λ1·KL(q_a(z|x_a)), …}``; weight 0 omits a term."""
    terms: Terms = {}
    for i in Domain:
        if weights.lambda1:  # L_VAE, equation 2
            terms[f"kl_{i}"] = weights.lambda1 * kl(out.mu[i])
        if weights.lambda2:
            terms[f"reconstruction_{i}"] = weights.lambda2 * l1(out.reconstruction[i], images[i])
        if weights.lambda3 and out.cycle_mu is not None:  # L_CC, equation 5, with both of its KL terms
            terms[f"cycle_kl_{i}"] = weights.lambda3 * (kl(out.mu[i]) + kl(out.cycle_mu[i]))
        if weights.lambda4 and out.cycle is not None:
            terms[f"cycle_{i}"] = weights.lambda4 * l1(out.cycle[i], images[i])
    return terms


def discriminator_terms(real: PerDomain[Logits], fake: PerDomain[Logits], weights: LossConfig) -> Terms:
    """Return D's weighted L_GAN (equation 4): `real[i]` are D_i's logits on x_i, `fake[i]` on x_j^{j→i}."""
    d_loss = ADVERSARIAL[weights.adversarial].d_loss
    return {f"discriminator_{i}": weights.lambda0 * d_loss(real[i], fake[i]) for i in Domain}


def generator_adversarial_terms(
    discriminators: Discriminators, real: PerDomain[Tensor], fake: PerDomain[Tensor], weights: LossConfig
) -> Terms:
    """Return G's weighted L_GAN (equation 4), non-saturating.

    G_i tries to make D_i classify `fake[i]` = x_j^{j→i} as real."""
    adversarial = ADVERSARIAL[weights.adversarial]
    real_logits: PerDomain[Logits] = PerDomain([], [])
    if adversarial.needs_real:
        with torch.no_grad():
            real_logits = discriminators(real)
    fake_logits = discriminators(fake)
    return {f"adversarial_{i}": weights.lambda0 * adversarial.g_loss(real_logits[i], fake_logits[i]) for i in Domain}


def total(terms: Mapping[str, Tensor]) -> Tensor:
    """Return the objective: the sum of its weighted terms."""
    return torch.stack(list(terms.values())).sum()
