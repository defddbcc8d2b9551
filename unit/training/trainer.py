"""One training step: the paper's alternating updates of the discriminators and of encoders and generators."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from unit.config import Config
from unit.devices import autocast
from unit.domains import Domain, PerDomain
from unit.model.extras import LossExtras
from unit.model.losses import Logits
from unit.model.networks import Autoencoders, build_autoencoders, build_discriminators
from unit.model.noise import draw_noise
from unit.model.objective import (
    ForwardPass,
    Microbatch,
    Terms,
    autoencoder_terms,
    discriminator_terms,
    forward_pass,
    generator_adversarial_terms,
    total,
    translate,
)
from unit.seeds import seed_for
from unit.training.distributed import SINGLE_PROCESS, Ranks
from unit.training.finite import FiniteWatch
from unit.training.old_checkpoints import upgraded


@dataclass(frozen=True)
class StepRecord:
    """The results of one step, still on the device."""

    generator: Terms
    """weighted terms of E and G, averaged over microbatches"""
    discriminator: Terms
    """weighted terms of D; empty when λ0 is 0"""
    real_logits: list[PerDomain[Logits]]
    """D_i's logits on x_i, by microbatch; empty when λ0 is 0"""
    fake_logits: list[PerDomain[Logits]]
    """D_i's logits on x_j^{j→i}, before D's update"""


class Trainer:
    """Networks, optimizers, EMA and step count: the state that training changes.

    Each rank has one. All ranks stay equal: same initial weights, same averaged gradients.
    """

    def __init__(self, config: Config, device: torch.device, precision: str, ranks: Ranks = SINGLE_PROCESS) -> None:
        self.config, self.device, self.precision, self.ranks = config, device, precision, ranks
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(config.train.seed, "weights"))
            networks, discriminators = build_autoencoders(config.model), build_discriminators(config.model)
            self.extras = LossExtras(config.loss, networks).to(device)
        self.networks = networks.to(device).to(memory_format=torch.channels_last)
        self.discriminators = discriminators.to(device).to(memory_format=torch.channels_last)
        self.networks.checkpoint_activations(config.train.checkpoint_activations)
        self.ema: Autoencoders = copy.deepcopy(self.networks).requires_grad_(False).eval()
        extras = self.extras.trained_with("generators"), self.extras.trained_with("discriminators")
        self.generator_modules = nn.ModuleDict({"networks": self.networks, "extras": extras[0]})
        """everything that the generators' optimizer updates"""
        self.discriminator_modules = nn.ModuleDict({"discriminators": self.discriminators, "extras": extras[1]})
        """everything that the discriminators' optimizer updates"""
        rates = config.optimizer
        self.optimizer_generator = self._adam(self.generator_modules, rates.learning_rate_generator)
        self.optimizer_discriminator = self._adam(self.discriminator_modules, rates.learning_rate_discriminator)
        self.optimizer_generator.register_step_pre_hook(
            lambda *_: self.extras.before_update(self.networks, rates.weight_decay)
        )
        self.steps_done = 0
        self.rollbacks = 0
        """number of rollbacks after NaN or Inf; it seeds the noise"""
        self.mid_step = False
        """D has been updated in a step that is not finished"""
        self.finite = FiniteWatch(device, ranks)
        self.compiled = False

    def _adam(self, modules: nn.Module, rate: float) -> torch.optim.Adam:
        config = self.config.optimizer
        betas = (config.beta1, config.beta2)
        return torch.optim.Adam(modules.parameters(), rate, betas, weight_decay=config.weight_decay, fused=True)

    def compile(self, backend: str = "inductor") -> None:
        """Compile the networks' forward passes, with CUDA graphs on CUDA; results are equal up to rounding."""
        mode = "reduce-overhead" if self.device.type == "cuda" and backend == "inductor" else None
        for network in (self.networks.encoder, self.networks.generator, self.discriminators):
            network.compile(backend=backend, mode=mode, dynamic=False)
        self.compiled = True

    # -- one step ------------------------------------------------------------------------------------------------------

    def step(self, images: PerDomain[Tensor]) -> StepRecord:
        """Update D, then E and G, then their EMA (section 3 of the paper, "Learning").

        Args:
            images: this rank's (B, 3, H, W) of each domain in [-1, 1]; B = batch_size × grad_accum_steps.

        Raises:
            NonFiniteError: a loss term or a gradient is NaN or Inf; the update it belongs to is not applied. (If that
                is E and G's, D has been updated already; on CUDA `finite.check` raises it later.)
        """
        loss, D = self.config.loss, self.discriminators  # noqa: N806 - the paper's name
        amp = partial(autocast, self.device, self.precision)  # for the networks; losses compute in fp32 either way
        step, microbatches = self.steps_done + 1, self.split_into_microbatches(images)
        self._begin_step()

        # Forward pass. One serves both updates; with several microbatches, memory holds the graph of one at a time, and
        # D's translations are computed without gradients first.
        if len(microbatches) == 1:
            self._forward(microbatches[0])

        # Discriminators: maximize L_GAN (equation 4), by minimizing d_loss, with E and G fixed.
        self.discriminator_modules.requires_grad_(True)
        self.optimizer_discriminator.zero_grad()
        d_terms, logits = [], []
        for batch in microbatches if loss.lambda0 else ():
            with amp():
                with torch.no_grad():
                    x = batch.out.translation if batch.out else translate(self.networks, batch.images, batch.noise)
                    inputs = self.extras.discriminator_inputs(batch.images, x.map(Tensor.detach), batch.seeds)
                batch.d_real, batch.d_fake = inputs
                logits.append(D.real_and_fake_logits(*inputs))
                d_terms.append(discriminator_terms(*logits[-1], loss))
                d_terms[-1] |= self.extras.discriminator_terms(D, batch)
            self._backward(d_terms[-1])
        if loss.lambda0:
            self._update(self.discriminator_modules, self.optimizer_discriminator)
            self.mid_step = True

        # Encoders and generators: minimize L_VAE + L_GAN + L_CC (equations 2, 4 and 5) with D fixed.
        self.discriminator_modules.requires_grad_(False)
        self.optimizer_generator.zero_grad()
        for batch in microbatches:
            out = batch.out or self._forward(batch)
            with amp():
                if loss.lambda0:
                    inputs = self.extras.discriminator_inputs(batch.images, out.translation, batch.seeds)
                    batch.d_real, batch.d_fake = inputs
                    batch.terms |= generator_adversarial_terms(D, *inputs, loss)
                batch.terms |= self.extras.generator_terms(self.networks, D, batch)
            self._backward(batch.terms)
            batch.out = batch.d_real = batch.d_fake = None  # nothing is kept of earlier microbatches
        self._update(self.generator_modules, self.optimizer_generator)

        self.steps_done, self.mid_step = step, False
        self._update_ema()
        real_logits, fake_logits = [real for real, _ in logits], [fake for _, fake in logits]
        return StepRecord(_means([b.terms for b in microbatches]), _means(d_terms), real_logits, fake_logits)

    def split_into_microbatches(self, images: PerDomain[Tensor]) -> list[Microbatch]:
        """Split a batch, and draw each part's noise: a function of its images' indices in the global sequence."""
        count, seed = self.config.train.grad_accum_steps, self.config.train.seed
        if self.rollbacks:
            seed = seed_for(seed, "rollback", self.rollbacks)
        images = images.map(lambda x: x.contiguous(memory_format=torch.channels_last))
        size = len(images.a) // count
        indices = self.ranks.sample_indices(self.steps_done, len(images.a))

        def microbatch(part: slice) -> Microbatch:
            def seeds(purpose: str, domain: Domain) -> list[int]:
                return [seed_for(seed, purpose, domain, index) for index in indices[part]]

            x = images.map(lambda x: x[part])
            noise = draw_noise(self.networks, x, seeds, self.config.model.noise)
            return Microbatch(x, seeds, noise, step=self.steps_done + 1)

        return [microbatch(slice(k * size, (k + 1) * size)) for k in range(count)]

    def _begin_step(self) -> None:
        if self.compiled:
            torch.compiler.cudagraph_mark_step_begin()
        config = self.config.optimizer
        factor = config.rate_factor(self.steps_done)
        self.optimizer_generator.param_groups[0]["lr"] = factor * config.learning_rate_generator
        self.optimizer_discriminator.param_groups[0]["lr"] = factor * config.learning_rate_discriminator

    def _forward(self, batch: Microbatch) -> ForwardPass:
        """Run the forward pass, and compute L_VAE and L_CC (equations 2 and 5)."""
        loss, perturb = self.config.loss, partial(self.extras.perturb, seeds=batch.seeds)
        cycle = loss.lambda3 > 0 or loss.lambda4 > 0
        with autocast(self.device, self.precision):
            batch.out = forward_pass(self.networks, batch.images, batch.noise, perturb, cycle=cycle)
        batch.terms = autoencoder_terms(batch.out, batch.images, loss)
        self._require_finite("the loss term", batch.terms)  # before D's update, so that nothing of this step is applied
        return batch.out

    def _backward(self, terms: Terms) -> None:
        """Backpropagate the sum of the terms, divided by grad_accum_steps."""
        self._require_finite("the loss term", terms)
        (total(terms) / self.config.train.grad_accum_steps).backward()

    def _update(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Take one step along the gradients' mean over all ranks."""
        self.ranks.average_gradients(network.parameters())
        gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
        self._require_finite("the gradient of", _norms(gradients))
        optimizer.step()

    def _update_ema(self) -> None:
        """Update the EMA with decay min(d, (1 + n) / (10 + n)) after n steps: warm-up, for random initial weights."""
        warm_up = 1.0 if self.config.train.init_from else (1 + self.steps_done) / (10 + self.steps_done)
        decay = min(self.config.model.ema_decay, warm_up)
        update = get_ema_multi_avg_fn(decay)
        update(list(self.ema.parameters()), [p.detach() for p in self.networks.parameters()], None)

    def _require_finite(self, kind: str, values: dict[str, Tensor]) -> None:
        self.finite.record(self.steps_done + 1, {f"{kind} {name}": value for name, value in values.items()})

    # -- used by the training loop ------------------------------------------------------------------------------------

    def learning_rates(self) -> tuple[float, float]:
        """Return the rates of generators and discriminators in the last step."""
        return tuple(float(o.param_groups[0]["lr"]) for o in (self.optimizer_generator, self.optimizer_discriminator))  # type: ignore[return-value]

    def gradient_norms(self) -> tuple[float, float]:
        """Return ‖g‖ of generators and discriminators in the last step."""
        networks = (self.generator_modules, self.discriminator_modules)
        gradients = ([p.grad for p in network.parameters() if p.grad is not None] for network in networks)
        return tuple(float(nn.utils.get_total_norm(g)) for g in gradients)  # type: ignore[return-value]

    def require_finite_weights(self) -> None:
        """Raise `NonFiniteError` if any weight is NaN or Inf: no checkpoint is written then."""
        self.finite.check()
        for network in (self.generator_modules, self.discriminator_modules):
            norms = _norms({f"the weight {name}": p.detach() for name, p in network.named_parameters()})
            self.finite.record(self.steps_done, norms)
        self.finite.check()

    def digest(self) -> str:
        """Return a digest of all weights, which is equal on all ranks."""
        state = hashlib.blake2b(digest_size=16)
        for network in (self.generator_modules, self.discriminator_modules, self.ema):
            for parameter in network.parameters():
                state.update(parameter.detach().cpu().contiguous().numpy().tobytes())
        return state.hexdigest()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next step depends on, besides configuration and data."""
        counts = {"steps_done": self.steps_done, "rollbacks": self.rollbacks}
        return counts | {name: part.state_dict() for name, part in self._stateful().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, in this version or the one before.

        Raises:
            KeyError, RuntimeError, ValueError: it is the state of another configuration.
        """
        state = upgraded(state, [name for name, _ in self.generator_modules.named_parameters()])
        self.steps_done, self.rollbacks = int(state["steps_done"]), int(state["rollbacks"])
        self.mid_step = False
        for name, part in self._stateful().items():
            part.load_state_dict(state[name])
            if isinstance(part, torch.optim.Optimizer):  # the configuration's, whatever the file says
                part.param_groups[0] |= part.defaults
                _require_fitting(part)

    def _stateful(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {
            "networks": self.networks,
            "discriminators": self.discriminators,
            "extras": self.extras,
            "ema": self.ema,
            "optimizer_generator": self.optimizer_generator,
            "optimizer_discriminator": self.optimizer_discriminator,
        }


def _means(terms: list[Terms]) -> Terms:
    """Average each term over the microbatches."""
    return {name: torch.stack([t[name].detach() for t in terms]).mean() for name in (terms[0] if terms else ())}


def _require_fitting(optimizer: torch.optim.Optimizer) -> None:
    """Compare shapes, which torch does not, although fused Adam reads and writes beyond a smaller tensor's end."""
    for parameter, state in optimizer.state.items():
        expected = {"step": (), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}
        if {name: tensor.shape for name, tensor in state.items()} != expected:
            raise ValueError("the optimizer's state is that of other parameters")


def _norms(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict(zip(tensors, torch._foreach_norm(list(tensors.values())), strict=True))
