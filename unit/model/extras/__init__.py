"""Ingredients that came after the paper, one file each, named after its key in `loss`; paper.yaml uses none of them.

To add one, write a file here with a class `Extra(LossExtra)` and give `LossConfig` a key of the file's name. A key at 0
or "none" costs nothing: its file is not even imported.
"""

from __future__ import annotations

from dataclasses import asdict
from importlib import import_module
from typing import Literal, cast

from torch import Tensor, nn

from unit.config import LossConfig
from unit.domains import PerDomain
from unit.model.networks import Autoencoders, Discriminators
from unit.model.noise import Seeds
from unit.model.objective import Microbatch, Terms

_PAPER = {"lambda0", "lambda1", "lambda2", "lambda3", "lambda4", "adversarial"}
_OFF = (0, "none")


class LossExtra(nn.Module):
    """One ingredient. It overrides what it needs.

    Args:
        setting: the value of its key, mostly a weight.
        networks: whose features or sizes it may need.
    """

    TRAINED_WITH: Literal["generators", "discriminators"] = "generators"
    """whose optimizer trains its own parameters: that of encoders and generators, or that of the discriminators"""

    def __init__(self, setting: float | str, networks: Autoencoders) -> None:
        super().__init__()
        self.setting = setting

    @property
    def weight(self) -> float:
        """The setting as a number."""
        return float(self.setting)

    def augment(self, images: PerDomain[Tensor], purpose: str, seeds: Seeds) -> PerDomain[Tensor]:
        """Change what the discriminators see; `purpose` and the domain select the seeds."""
        return images

    def perturb(self, translation: PerDomain[Tensor], seeds: Seeds) -> PerDomain[Tensor]:
        """Change translations before the cycle encodes them again."""
        return translation

    def discriminator_terms(self, discriminators: Discriminators, batch: Microbatch) -> Terms:
        """Return weighted terms of D; `batch` has what D_i sees, without gradients."""
        return {}

    def generator_terms(self, networks: Autoencoders, discriminators: Discriminators, batch: Microbatch) -> Terms:
        """Return weighted terms of E and G for a batch whose pass is computed; D is frozen."""
        return {}

    def before_update(self, networks: Autoencoders, weight_decay: float) -> None:
        """Change the gradients of E and G before their optimizer's step, which adds `weight_decay` · θ to them."""


class LossExtras(nn.ModuleDict):
    """The ingredients that are switched on, by key; each method passes through all of them."""

    def __init__(self, weights: LossConfig, networks: Autoencoders) -> None:
        switched_on = {k: value for k, value in asdict(weights).items() if k not in _PAPER and value not in _OFF}
        files = {key: import_module(f"{__name__}.{key}") for key in switched_on}
        super().__init__({key: file.Extra(switched_on[key], networks) for key, file in files.items()})

    def _all(self) -> list[LossExtra]:
        return cast(list[LossExtra], list(self.values()))

    def trained_with(self, networks: Literal["generators", "discriminators"]) -> nn.ModuleDict:
        """Return the ingredients whose parameters the optimizer of these networks trains."""
        return nn.ModuleDict({k: v for k, v in self.items() if isinstance(v, LossExtra) and networks == v.TRAINED_WITH})

    def discriminator_inputs(
        self, images: PerDomain[Tensor], translation: PerDomain[Tensor], seeds: Seeds
    ) -> tuple[PerDomain[Tensor], PerDomain[Tensor]]:
        """Return what the discriminators see, by their own domain: of x_i, and of x_j^{j→i}."""
        for extra in self._all():
            images = extra.augment(images, "augmentation of real", seeds)
            translation = extra.augment(translation, "augmentation of fake", seeds)
        return images, translation.swapped()

    def perturb(self, translation: PerDomain[Tensor], seeds: Seeds) -> PerDomain[Tensor]:
        """Change translations before the cycle encodes them again."""
        for extra in self._all():
            translation = extra.perturb(translation, seeds)
        return translation

    def discriminator_terms(self, discriminators: Discriminators, batch: Microbatch) -> Terms:
        """Return all terms of D."""
        return {k: v for extra in self._all() for k, v in extra.discriminator_terms(discriminators, batch).items()}

    def generator_terms(self, networks: Autoencoders, discriminators: Discriminators, batch: Microbatch) -> Terms:
        """Return all terms of E and G."""
        terms: Terms = {}
        for extra in self._all():
            terms |= extra.generator_terms(networks, discriminators, batch)
        return terms

    def before_update(self, networks: Autoencoders, weight_decay: float) -> None:
        """Change the gradients of E and G before their optimizer's step."""
        for extra in self._all():
            extra.before_update(networks, weight_decay)
