"""The objective of the paper's domain adaptation, as in the authors' release: one pass, and its weighted terms.

As in `objective.py`, i is a domain and everything is indexed by the domain of the image it came from. Unlike there, the
code's variance is learned, the discriminators judge reconstructions too, nothing is cycled, and errors are squared and
summed over an image. Domain A is the source, domain B the target.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from unit.digits.config import AdaptationLossConfig
from unit.domains import Domain, PerDomain
from unit.model.digit_networks import ClassifyingDiscriminators, Judgement, gaussian_code
from unit.model.losses import class_cross_entropy, cross_entropy, gaussian_kl, squared_distance
from unit.model.networks import RECONSTRUCTIONS, TRANSLATIONS, Autoencoders, Direction
from unit.model.noise import Seeds, gaussian
from unit.model.objective import Terms


@dataclass(frozen=True)
class AdaptationPass:
    """Everything that one pass through encoders and generators computes from a batch."""

    mu: PerDomain[Tensor]
    sd: PerDomain[Tensor]
    images: dict[Direction, Tensor]
    """x[i, j] = x_i^{i→j}: the reconstructions and the translations"""


def adaptation_pass(networks: Autoencoders, images: PerDomain[Tensor], seeds: Seeds) -> AdaptationPass:
    """Encode, reconstruct and translate a batch; one z = μ + σ η feeds both, η ~ N(0, I)."""
    features = networks.encoder({i: images[i] for i in Domain})
    codes = PerDomain.of(lambda i: gaussian_code(features[i]))
    z = {i: _sample(*codes[i], seeds("noise", i)) for i in Domain}
    decoded = networks.generator(z, RECONSTRUCTIONS + TRANSLATIONS)
    return AdaptationPass(codes.map(lambda code: code[0]), codes.map(lambda code: code[1]), decoded)


def _sample(mu: Tensor, sd: Tensor, seeds: list[int]) -> Tensor:
    return mu + sd * gaussian(mu.shape[1:], seeds, mu.device)


def translate_digits(networks: Autoencoders, images: Tensor, source: Domain) -> Tensor:
    """Return x^{i→j} of the code's mean."""
    mu, _ = gaussian_code(networks.encoder({source: images})[source])
    direction = (source, source.other)
    translation: Tensor = networks.generator({source: mu}, [direction])[direction]
    return translation


def autoencoder_terms(out: AdaptationPass, images: PerDomain[Tensor], weights: AdaptationLossConfig) -> Terms:
    """Return the weighted terms of the VAE: KL and reconstruction."""
    terms: Terms = {}
    for i in Domain:
        terms[f"kl_{i}"] = weights.kl * gaussian_kl(out.mu[i], out.sd[i])
        terms[f"reconstruction_{i}"] = weights.reconstruction * squared_distance(out.images[i, i], images[i])
    return terms


Key = TypeVar("Key", bound=Hashable)


def judge(
    discriminators: ClassifyingDiscriminators, images: Mapping[Key, tuple[Domain, Tensor]]
) -> dict[Key, Judgement]:
    """Let D_j judge all images of domain j in one batch; `images` maps what they are to their domain and themselves."""
    keys = {j: [key for key, (domain, _) in images.items() if domain is j] for j in Domain}
    batches = {j: torch.cat([images[key][1] for key in keys[j]]) for j in Domain if keys[j]}
    found: dict[Key, Judgement] = {}
    for j, judged in discriminators(batches).items():
        parts = zip(*(output.split([len(images[key][1]) for key in keys[j]]) for output in judged), strict=True)
        found |= {key: Judgement(*part) for key, part in zip(keys[j], parts, strict=True)}
    return found


def discriminator_terms(
    real: Mapping[Domain, Judgement], fake: Mapping[Direction, Judgement], weights: AdaptationLossConfig
) -> Terms:
    """Return D's weighted adversarial terms, and the distance of features between an image's two decodings.

    `fake[i, j]` is what D_j says about x_i^{i→j}.
    """
    terms: Terms = {}
    for j in Domain:
        judged = [i for i in Domain if i is not j or weights.judge_reconstructions]
        fakes = torch.stack([cross_entropy([fake[i, j].logit], real=False) for i in judged]).mean()
        adversarial = cross_entropy([real[j].logit], real=True) + fakes
        terms[f"discriminator_{j}"] = weights.adversarial / len(Domain) * adversarial
        if weights.feature_matching:
            distance = squared_distance(fake[j, j.other].features, fake[j, j].features)
            terms[f"feature_matching_{j}"] = weights.feature_matching * distance
    return terms


def generator_terms(fake: Mapping[Direction, Judgement], weights: AdaptationLossConfig) -> Terms:
    """Return G's weighted adversarial terms, non-saturating: all `fake` that G_j makes, D_j should take for real."""

    def adversarial(j: Domain) -> Tensor:
        return torch.stack([cross_entropy([fake[i, j].logit], real=True) for i in Domain if (i, j) in fake]).sum()

    return {f"adversarial_{j}": weights.adversarial / len(Domain) * adversarial(j) for j in Domain}


def consistency(teacher: Tensor, student: Tensor, confidence: float) -> Tensor:
    """Cross-entropy against the class that the teacher sees, of images of which it is sure enough; mean over all.

    Both are logits (B, classes); the teacher gets no gradient (French et al., ICLR 2018; Sohn et al., NeurIPS 2020).
    """
    probability, guess = teacher.detach().softmax(1).max(1)
    return class_cross_entropy(student, guess, (probability >= confidence).float())


def distort(images: Tensor, seeds: list[int], strength: float) -> Tensor:
    """Map each image by a random affine map (French et al., ICLR 2018); what comes from outside is the edge.

    The elements of the map's matrix are those of I plus strength · N(0, 1), the shifts strength · N(0, 1) half sides.
    """
    if not strength:
        return images
    offsets = strength * gaussian((2, 3), seeds, images.device)
    grid = functional.affine_grid(torch.eye(2, 3, device=images.device) + offsets, list(images.shape), False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
