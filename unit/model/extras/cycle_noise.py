"""Noise on translations before the cycle encodes them, so that nothing can be hidden in them (Chu et al. 2017)."""

from __future__ import annotations

from torch import Tensor

from unit.domains import Domain, PerDomain
from unit.model.extras import LossExtra
from unit.model.noise import Seeds, gaussian


class Extra(LossExtra):
    """Adds σε to x_i^{i→j}, ε ~ N(0, I); σ is the setting."""

    def perturb(self, translation: PerDomain[Tensor], seeds: Seeds) -> PerDomain[Tensor]:
        """Return the noisy translations."""

        def noisy(i: Domain) -> Tensor:
            x = translation[i]
            return x + self.weight * gaussian(x.shape[1:], seeds("image noise", i), x.device)

        return PerDomain.of(noisy)
