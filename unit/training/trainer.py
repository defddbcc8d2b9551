"""One training step: the paper's alternating updates of the discriminators and of encoders and generators."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from unit.config import Config
from unit.devices import autocast
from unit.domains import Domain, PerDomain
from unit.model.networks import Autoencoders, build_autoencoders, build_discriminators
from unit.model.noise import gaussian_codes
from unit.model.objective import (
    Logits,
    Noise,
    Terms,
    autoencoder_terms,
    discriminator_terms,
    forward_pass,
    generator_terms,
    total,
)
from unit.seeds import seed_for
from unit.training.finite import FiniteWatch


@dataclass(frozen=True)
class StepRecord:
    """What one step computed, still on the device."""

    generator: Terms
    """weighted terms of the encoders' and generators' objective"""
    discriminator: Terms
    """weighted terms of the discriminators' objective; empty when λ0 is 0"""
    real: Logits | None
    """D_i's verdict on x_i"""
    fake: Logits | None
    """D_i's verdict on x_j^{j→i}, before D's update"""


class Trainer:
    """Networks, optimizers, the running average and the step number: the state that training changes."""

    def __init__(self, config: Config, device: torch.device, precision: str) -> None:
        self.config, self.device, self.precision = config, device, precision
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(config.train.seed, "weights"))
            networks, discriminators = build_autoencoders(config.model), build_discriminators(config.model)
        self.networks = networks.to(device).to(memory_format=torch.channels_last)
        self.discriminators = discriminators.to(device).to(memory_format=torch.channels_last)
        self.networks.checkpoint_activations = config.train.checkpoint_activations
        self.average: Autoencoders = copy.deepcopy(self.networks).requires_grad_(False).eval()
        rates = config.optimizer
        self.optimizer_generator = self._adam(self.networks, rates.learning_rate_generator)
        self.optimizer_discriminator = self._adam(self.discriminators, rates.learning_rate_discriminator)
        self.steps_done = 0
        self.rollbacks = 0
        """how often the run went back because of something not finite; each time with other noise"""
        self.mid_step = False
        """the discriminators have moved in a step that is not done"""
        self.finite = FiniteWatch(device)

    def _adam(self, network: nn.Module, rate: float) -> torch.optim.Adam:
        config = self.config.optimizer
        betas = (config.beta1, config.beta2)
        # network.parameters() gives a shared parameter once, so Adam moves it once.
        return torch.optim.Adam(network.parameters(), rate, betas, weight_decay=config.weight_decay, fused=True)

    # -- one step ------------------------------------------------------------------------------------------------------

    def step(self, images: PerDomain[Tensor]) -> StepRecord:
        """Update D, then E and G, then their average, on a batch (B, 3, H, W) of each domain in [-1, 1].

        Raises:
            NonFiniteError: a loss term or a gradient is not finite; nothing of it has been applied. (Not on CUDA, where
                `finite.check` raises it later.)
        """
        weights = self.config.loss
        images = images.map(lambda x: x.contiguous(memory_format=torch.channels_last))
        noise = self._noise(images)
        self._set_learning_rates()
        real = fake = None
        d_terms: Terms = {}

        with autocast(self.device, self.precision):
            out = forward_pass(self.networks, images, noise, weights)
        g_terms = autoencoder_terms(out, images, weights)
        self._require_finite(g_terms)  # as long as nothing has been updated

        if weights.lambda0 and out.translation:
            with autocast(self.device, self.precision):
                real, fake = self.discriminators.compare(images, out.translation.swapped().map(torch.Tensor.detach))
            d_terms = discriminator_terms(real, fake, weights)
            self._update(self.discriminators, self.optimizer_discriminator, d_terms)

            with _frozen(self.discriminators), autocast(self.device, self.precision):
                g_terms |= generator_terms(self.discriminators(out.translation.swapped()), weights)
        self._update(self.networks, self.optimizer_generator, g_terms)

        self.steps_done += 1
        self.mid_step = False
        self._update_average()
        return StepRecord(g_terms, d_terms, real, fake)

    def _update(self, network: nn.Module, optimizer: torch.optim.Optimizer, terms: Terms) -> None:
        optimizer.zero_grad(set_to_none=True)
        self._require_finite(terms)
        total(terms).backward()
        self._require_finite_gradients(network)
        optimizer.step()
        self.mid_step = True

    def _require_finite(self, terms: Terms) -> None:
        self.finite.look(self.steps_done + 1, {f"the loss term {name}": value for name, value in terms.items()})

    def _require_finite_gradients(self, network: nn.Module) -> None:
        gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
        norms = torch._foreach_norm(list(gradients.values()))
        self.finite.look(
            self.steps_done + 1, {f"the gradient of {n}": norm for n, norm in zip(gradients, norms, strict=True)}
        )

    # ------------------------------------------------------------------------------------------------------------------

    def _noise(self, images: PerDomain[Tensor]) -> Noise:
        """η of every encoding of this step, each image's a function of its place in the global sequence."""
        seed, first = self.config.train.seed, self.steps_done * self.config.train.batch_size
        if self.rollbacks:
            seed = seed_for(seed, "rollback", self.rollbacks)
        if self.config.model.dropout:
            torch.manual_seed(seed_for(seed, "dropout", self.steps_done))

        def draw(purpose: str, domain: Domain) -> Tensor:
            batch, _, height, width = images[domain].shape
            seeds = [seed_for(seed, purpose, domain, first + k) for k in range(batch)]
            return gaussian_codes(self.networks.code_shape(height, width), seeds, self.device)

        return Noise(
            code=PerDomain.of(lambda i: draw("noise", i)),
            cycle=PerDomain.of(lambda i: draw("cycle noise", i)),
        )

    def _set_learning_rates(self) -> None:
        config = self.config.optimizer
        factor = config.rate_factor(self.steps_done)
        self.optimizer_generator.param_groups[0]["lr"] = factor * config.learning_rate_generator
        self.optimizer_discriminator.param_groups[0]["lr"] = factor * config.learning_rate_discriminator

    def learning_rates(self) -> tuple[float, float]:
        """Of encoders and generators, and of the discriminators, in the last step."""
        optimizers = (self.optimizer_generator, self.optimizer_discriminator)
        generator, discriminator = (float(optimizer.param_groups[0]["lr"]) for optimizer in optimizers)
        return generator, discriminator

    def _update_average(self) -> None:
        """Decay min(d, (1 + n) / (10 + n)) after n steps, so that the first steps are forgotten soon."""
        decay = min(self.config.model.average_decay, (1 + self.steps_done) / (10 + self.steps_done))
        update = get_ema_multi_avg_fn(decay)
        update(list(self.average.parameters()), [p.detach() for p in self.networks.parameters()], None)

    def gradient_norms(self) -> tuple[float, float]:
        """‖g‖ of encoders and generators, and of the discriminators, in the last step."""
        norms = (
            nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None])
            for network in (self.networks, self.discriminators)
        )
        generator, discriminator = (float(norm) for norm in norms)
        return generator, discriminator

    def require_finite_weights(self) -> None:
        """Raise `NonFiniteError` for what a step left behind: no checkpoint is made of it."""
        self.finite.check()
        for part in (self.networks, self.discriminators):
            weights = {f"the weight {name}": p.detach() for name, p in part.named_parameters()}
            norms = torch._foreach_norm(list(weights.values()))
            self.finite.look(self.steps_done, dict(zip(weights, norms, strict=True)))
        self.finite.check()

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on besides the configuration and the data."""
        counts = {"steps_done": self.steps_done, "rollbacks": self.rollbacks}
        return counts | {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.steps_done, self.rollbacks = state["steps_done"], state["rollbacks"]
        self.mid_step = False
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {
            "networks": self.networks,
            "discriminators": self.discriminators,
            "average": self.average,
            "optimizer_generator": self.optimizer_generator,
            "optimizer_discriminator": self.optimizer_discriminator,
        }


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """No gradients for the network's own weights; they still pass through it."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)
