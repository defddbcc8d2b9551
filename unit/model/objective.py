"""The paper's objective: one pass through encoders and generators, and the weighted terms of equations 2 to 5.

In all of it i is a domain and j the other one, and everything is filed under the domain of the image it came from:
`translation[i]` is x_i^{i→j}, which D_j judges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from unit.config import LossConfig
from unit.domains import Domain, PerDomain
from unit.model.losses import adversarial, kl, l1
from unit.model.networks import Autoencoders

Logits = PerDomain[list[Tensor]]
Terms = dict[str, Tensor]


@dataclass(frozen=True)
class Noise:
    """η ~ N(0, I) of each encoding, shaped like its μ."""

    code: PerDomain[Tensor]
    cycle: PerDomain[Tensor]


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


def forward_pass(networks: Autoencoders, images: PerDomain[Tensor], noise: Noise, weights: LossConfig) -> Pass:
    """Encode, reconstruct, translate and cycle a batch (B, 3, H, W) of each domain, as far as the weights need it."""
    with_cycle = weights.lambda3 > 0 or weights.lambda4 > 0
    mu = networks.encode(images)
    z = PerDomain.of(lambda i: mu[i] + noise.code[i])
    decoded = networks.decode(z, own=weights.lambda2 > 0, other=with_cycle or weights.lambda0 > 0)
    cycle_mu = cycle = None
    if with_cycle and decoded.other is not None:
        # x_i^{i→j} looks like domain j: what came from i goes through E_j, and back through G_i.
        cycle_mu = networks.encode(decoded.other.swapped()).swapped()
        if weights.lambda4 > 0:
            cycle_z = PerDomain.of(lambda i: cycle_mu[i] + noise.cycle[i])
            cycle = networks.decode(cycle_z, own=True, other=False).own
    return Pass(mu, decoded.own, decoded.other, cycle_mu, cycle)


def autoencoder_terms(out: Pass, images: PerDomain[Tensor], weights: LossConfig) -> Terms:
    """The weighted VAE and cycle terms, e.g. ``{"kl_a": λ1·KL(q_a(z|x_a)), …}``; a weight of 0 leaves its term out."""
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
    return terms


def generator_terms(fake: Logits, weights: LossConfig) -> Terms:
    """Equation 4 for E and G, weighted: `fake[i]` is D_i's verdict on x_j^{j→i}; G_i wants it to be "real"."""
    return {f"adversarial_{i}": weights.lambda0 * adversarial(fake[i], True, weights.adversarial) for i in Domain}


def discriminator_terms(real: Logits, fake: Logits, weights: LossConfig) -> Terms:
    """Equation 4 for D, weighted: `real[i]` is D_i's verdict on x_i, `fake[i]` on x_j^{j→i}."""
    kind = weights.adversarial
    return {
        f"discriminator_{i}": weights.lambda0 * (adversarial(real[i], True, kind) + adversarial(fake[i], False, kind))
        for i in Domain
    }


def total(terms: Mapping[str, Tensor]) -> Tensor:
    """The objective: the sum of its weighted terms."""
    return torch.stack(list(terms.values())).sum()
