"""Memory Aware Synapses (Aljundi et al., ECCV 2018): weights that matter for what was learned stay where they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from unit.domains import Domain, PerDomain
from unit.model.extras import LossExtra
from unit.model.networks import Autoencoders, Discriminators
from unit.model.objective import Microbatch, Terms


class Importance:
    """Ω: how much the output for an image changes with each weight (section 4.1 of the paper), from unlabelled images.

    Ω = Σ_F mean_x |∂ mean(F(x)²) / ∂θ|. F are the six maps that UNIT learns: of each domain i the code μ_i(x_i), the
    reconstruction x_i^{i→i} and the translation x_i^{i→j}; without noise. The inner mean is that over a map's outputs,
    so that Ω does not depend on the images' size, and the absolute value is taken of each image's own gradient: that of
    a batch's sum would let images cancel each other.

    Args:
        networks: E and G, whose weights must require gradients.
    """

    def __init__(self, networks: Autoencoders) -> None:
        self._networks, self._weights = networks.eval(), dict(networks.named_parameters())
        self._sums = PerDomain.of(lambda _: {name: torch.zeros_like(p) for name, p in self._weights.items()})
        self._counts = dict.fromkeys(Domain, 0)

    def add(self, image: Tensor, i: Domain) -> None:
        """Add an image (1, 3, H, W) in [-1, 1] of domain i; H and W are multiples of `networks.scale`."""
        mu = self._networks.encoder({i: image})[i]
        decoded = self._networks.generator({i: mu}, [(i, j) for j in Domain])
        for output in (mu, *decoded.values()):
            gradients = torch.autograd.grad(
                output.square().mean(), list(self._weights.values()), retain_graph=True, allow_unused=True
            )
            for total, gradient in zip(self._sums[i].values(), gradients, strict=True):
                if gradient is not None:
                    total += gradient.abs()
        self._counts[i] += 1

    def mean(self) -> dict[str, Tensor]:
        """Return Ω of each weight, by its name in the networks; both domains have equal shares, however many images."""
        shares = [{name: s / max(1, self._counts[i]) for name, s in self._sums[i].items()} for i in Domain]
        return {name: shares[0][name] + shares[1][name] for name in self._weights}


class Extra(LossExtra):
    """λ Σ Ω (θ − θ*)² over the weights θ of E and G, and weight decay towards θ* instead of 0.

    θ* and Ω are buffers, so each checkpoint holds them, and a resumed run needs nothing else. They are 0 until
    `remember` is called or a checkpoint is loaded.
    """

    start: Tensor
    """θ*, all weights in one row"""
    importance: Tensor
    """Ω"""

    def __init__(self, setting: float | str, networks: Autoencoders) -> None:
        super().__init__(setting, networks)
        for name in ("start", "importance"):
            self.register_buffer(name, torch.zeros(sum(p.numel() for p in networks.parameters())))

    def remember(self, start: Autoencoders, importance: Mapping[str, Tensor]) -> None:
        """Set θ* to the weights of `start`, and Ω, which is given by the weights' names."""
        with torch.no_grad():
            self.start.copy_(_row(start.parameters()))
            self.importance.copy_(_row(importance[name] for name, _ in start.named_parameters()))

    def generator_terms(self, networks: Autoencoders, discriminators: Discriminators, batch: Microbatch) -> Terms:
        """Return the weighted penalty, summed over all weights."""
        moved = _row(networks.parameters()) - self.start
        return {"memory": self.weight * (self.importance * moved.square()).sum()}

    def before_update(self, networks: Autoencoders, weight_decay: float) -> None:
        """Subtract weight_decay · θ* from the gradients, to which Adam adds weight_decay · θ."""
        parameters = list(networks.parameters())
        for parameter, start in zip(parameters, self.start.split([p.numel() for p in parameters]), strict=True):
            if parameter.grad is not None:
                parameter.grad.sub_(start.view_as(parameter), alpha=weight_decay)


def _row(weights: Iterable[Tensor]) -> Tensor:
    return torch.cat([weight.flatten() for weight in weights])
