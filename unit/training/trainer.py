"""One training step: the paper's alternating updates of the discriminators and of encoders and generators."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from unit.config import Config
from unit.devices import autocast
from unit.domains import Domain, PerDomain
from unit.model.networks import Autoencoders, build_autoencoders, build_discriminators
from unit.model.objective import (
    Logits,
    Noise,
    Pass,
    Terms,
    autoencoder_terms,
    discriminator_terms,
    draw_noise,
    forward_pass,
    judged_terms,
    r1_terms,
    show,
    total,
    translations,
)
from unit.model.patches import build_patch_projector
from unit.seeds import seed_for
from unit.training.distributed import SINGLE_PROCESS, Ranks
from unit.training.finite import FiniteWatch


@dataclass(frozen=True)
class StepRecord:
    """What one step computed, still on the device."""

    generator: Terms
    """weighted terms of the encoders' and generators' objective"""
    discriminator: Terms
    """weighted terms of the discriminators' objective; empty when λ0 is 0"""
    real: list[Logits]
    """D_i's verdict on x_i, of each part of the batch; empty when λ0 is 0"""
    fake: list[Logits]
    """D_i's verdict on x_j^{j→i}, before D's update"""


@dataclass
class _Part:
    """As much of a batch as is computed at once, and what has been computed of it."""

    images: PerDomain[Tensor]
    noise: Noise
    out: Pass | None = None
    """what both updates use, where there is memory for it"""
    autoencoder: Terms = field(default_factory=dict)
    verdicts: list[Logits] = field(default_factory=list)
    """on real images and on translations"""


class Trainer:
    """Networks, optimizers, the running average and the step number: the state that training changes.

    Of several ranks each has one, and all stay equal: they begin alike and follow the mean of their gradients.
    """

    def __init__(self, config: Config, device: torch.device, precision: str, ranks: Ranks = SINGLE_PROCESS) -> None:
        self.config, self.device, self.precision, self.ranks = config, device, precision, ranks
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(config.train.seed, "weights"))
            networks, discriminators = build_autoencoders(config.model), build_discriminators(config.model)
            projector = build_patch_projector(networks).to(device) if config.loss.patch_nce else None
        self.networks = networks.to(device).to(memory_format=torch.channels_last)
        self.discriminators = discriminators.to(device).to(memory_format=torch.channels_last)
        self.projector = projector
        self.autoencoding = nn.ModuleDict(
            {"networks": self.networks, **({"projector": projector} if projector else {})}
        )
        """all that the first optimizer moves"""
        self.networks.checkpoint_activations = config.train.checkpoint_activations
        self.ema: Autoencoders = copy.deepcopy(self.networks).requires_grad_(False).eval()
        rates = config.optimizer
        self.optimizer_generator = self._adam(self.autoencoding, rates.learning_rate_generator)
        self.optimizer_discriminator = self._adam(self.discriminators, rates.learning_rate_discriminator)
        self.steps_done = 0
        self.rollbacks = 0
        """how often the run went back because of something not finite; each time with other noise"""
        self.mid_step = False
        """the discriminators have moved in a step that is not done"""
        self.finite = FiniteWatch(device, ranks)
        self._forward_pass, self._judged_terms = forward_pass, judged_terms
        self._compare, self.compiled = self.discriminators.compare, False

    def _adam(self, network: nn.Module, rate: float) -> torch.optim.Adam:
        config = self.config.optimizer
        betas = (config.beta1, config.beta2)
        # network.parameters() gives a shared parameter once, so Adam moves it once.
        return torch.optim.Adam(network.parameters(), rate, betas, weight_decay=config.weight_decay, fused=True)

    def compile(self, backend: str = "inductor") -> None:
        """Let torch compile the passes through the networks, on CUDA for replay as graphs: the same up to rounding."""
        mode = "reduce-overhead" if self.device.type == "cuda" and backend == "inductor" else None
        compiled = partial(torch.compile, backend=backend, mode=mode, dynamic=False)
        self._forward_pass, self._judged_terms = compiled(forward_pass), compiled(judged_terms)
        self._compare, self.compiled = compiled(self.discriminators.compare), True

    # -- one step ------------------------------------------------------------------------------------------------------

    def step(self, images: PerDomain[Tensor]) -> StepRecord:
        """Update D, then E and G, then their EMA, on this rank's images (B, 3, H, W) of each domain in [-1, 1].

        They are computed in `train.grad_accum_steps` parts of one size, one batch with those of all ranks.

        Raises:
            NonFiniteError: a loss term or a gradient is not finite; nothing of it has been applied. (Not on CUDA, where
                `finite.check` raises it later.)
        """
        if self.compiled:
            torch.compiler.cudagraph_mark_step_begin()
        self._set_learning_rates()
        parts = self._in_parts(images)
        if len(parts) == 1:  # one pass serves both updates; of several, memory is to hold one
            self._pass(parts[0])
        d_terms: Terms = {}
        if self.config.loss.lambda0:
            d_terms = self._update(self.discriminators, self.optimizer_discriminator, self._discriminator_terms, parts)
        g_terms = self._update(self.autoencoding, self.optimizer_generator, self._generator_terms, parts)

        self.steps_done += 1
        self.mid_step = False
        self._update_ema()
        real, fake = zip(*(part.verdicts for part in parts), strict=True) if d_terms else ((), ())
        return StepRecord(g_terms, d_terms, list(real), list(fake))

    def _pass(self, part: _Part) -> Pass:
        """Through encoders and generators, and the terms of it without D; first of all, as nothing is updated yet."""
        with autocast(self.device, self.precision):
            part.out = self._forward_pass(self.networks, part.images, part.noise, self.config.loss, self.projector)
        part.autoencoder = autoencoder_terms(part.out, part.images, self.config.loss)
        self._require_finite(part.autoencoder)
        return part.out

    def _discriminator_terms(self, part: _Part) -> Terms:
        """Equation 4 for D; no gradient leaves it towards E and G."""
        weights = self.config.loss
        with autocast(self.device, self.precision):
            with torch.no_grad():
                translation = part.out.translation if part.out else translations(self.networks, part.images, part.noise)
                assert translation
                shown = show(part.images, translation, part.noise, weights)
            real, fake = self._compare(shown.real, shown.fake.map(torch.Tensor.detach))
        part.verdicts = [real, fake]
        terms = discriminator_terms(real, fake, weights)
        return terms | r1_terms(self.discriminators, shown.real, weights) if weights.r1_due(self.steps_done) else terms

    def _generator_terms(self, part: _Part) -> Terms:
        """Equations 2, 4 and 5 for E and G, against D as it is now."""
        out, part.out = part.out or self._pass(part), None
        if not (self.config.loss.lambda0 and out.translation):
            return part.autoencoder
        with _frozen(self.discriminators), autocast(self.device, self.precision):
            shown = show(part.images, out.translation, part.noise, self.config.loss)
            return part.autoencoder | self._judged_terms(self.discriminators, shown, self.config.loss)

    def _update(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        terms_of: Callable[[_Part], Terms],
        parts: list[_Part],
    ) -> Terms:
        """One update of a network by the mean over the parts, and over the ranks; returns the terms' means here."""
        optimizer.zero_grad(set_to_none=True)
        seen = []
        for part in parts:
            terms = terms_of(part)
            self._require_finite(terms)
            (total(terms) / len(parts)).backward()
            seen.append({name: value.detach() for name, value in terms.items()})
        self.ranks.average_gradients(network.parameters())
        self._require_finite_gradients(network)
        optimizer.step()
        self.mid_step = True
        return {name: torch.stack([terms[name] for terms in seen]).mean() for name in seen[0]}

    def _require_finite(self, terms: Terms) -> None:
        self.finite.look(self.steps_done + 1, {f"the loss term {name}": value for name, value in terms.items()})

    def _require_finite_gradients(self, network: nn.Module) -> None:
        gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
        norms = torch._foreach_norm(list(gradients.values()))
        self.finite.look(
            self.steps_done + 1, {f"the gradient of {n}": norm for n, norm in zip(gradients, norms, strict=True)}
        )

    # ------------------------------------------------------------------------------------------------------------------

    def _in_parts(self, images: PerDomain[Tensor]) -> list[_Part]:
        images = images.map(lambda x: x.contiguous(memory_format=torch.channels_last))
        count = self.config.train.grad_accum_steps
        noise, parts = self._noise(images), images.map(lambda x: x.chunk(count))
        return [_Part(parts.map(lambda x: x[k]), noise.part(k, count)) for k in range(len(parts.a))]  # noqa: B023

    def _noise(self, images: PerDomain[Tensor]) -> Noise:
        """All that is random in this step, each image's a function of its place in the global sequence."""
        seed, places = self.config.train.seed, self.ranks.sample_indices(self.steps_done, len(images.a))
        if self.rollbacks:
            seed = seed_for(seed, "rollback", self.rollbacks)
        if self.config.model.dropout:
            torch.manual_seed(seed_for(seed, "dropout", places.start))

        def seeds(purpose: str, domain: Domain) -> list[int]:
            return [seed_for(seed, purpose, domain, place) for place in places]

        return draw_noise(self.networks, images, self.config.loss, seeds, self.config.model.noise)

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

    def _update_ema(self) -> None:
        """Decay min(d, (1 + n) / (10 + n)) after n steps, so that the first steps are forgotten soon."""
        decay = min(self.config.model.ema_decay, (1 + self.steps_done) / (10 + self.steps_done))
        update = get_ema_multi_avg_fn(decay)
        update(list(self.ema.parameters()), [p.detach() for p in self.networks.parameters()], None)

    def gradient_norms(self) -> tuple[float, float]:
        """‖g‖ of encoders and generators, and of the discriminators, in the last step."""
        norms = (
            nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None])
            for network in (self.autoencoding, self.discriminators)
        )
        generator, discriminator = (float(norm) for norm in norms)
        return generator, discriminator

    def require_finite_weights(self) -> None:
        """Raise `NonFiniteError` for what a step left behind: no checkpoint is made of it."""
        self.finite.check()
        for part in (self.autoencoding, self.discriminators):
            weights = {f"the weight {name}": p.detach() for name, p in part.named_parameters()}
            norms = torch._foreach_norm(list(weights.values()))
            self.finite.look(self.steps_done, dict(zip(weights, norms, strict=True)))
        self.finite.check()

    def digest(self) -> str:
        """Of all weights: what equal ranks have in common."""
        state = hashlib.blake2b(digest_size=16)
        for part in (self.autoencoding, self.discriminators, self.ema):
            for parameter in part.parameters():
                state.update(parameter.detach().cpu().contiguous().numpy().tobytes())
        return state.hexdigest()

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
            "ema": self.ema,
            "optimizer_generator": self.optimizer_generator,
            "optimizer_discriminator": self.optimizer_discriminator,
            **({"projector": self.projector} if self.projector else {}),
        }


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """No gradients for the network's own weights; they still pass through it."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)
