"""One training step: the paper's alternating updates of the discriminators and of encoders and generators."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from unit.config import Config
from unit.devices import autocast
from unit.domains import Domain, PerDomain
from unit.model.extras import LossExtras
from unit.model.networks import Autoencoders, Discriminators, build_autoencoders, build_discriminators
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
from unit.training.state import StepRecord, TrainingState


class Trainer(TrainingState):
    """The networks of UNIT, and one step of their training."""

    discriminators: Discriminators
    ema: Autoencoders

    def __init__(self, config: Config, device: torch.device, precision: str, ranks: Ranks = SINGLE_PROCESS) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(config.train.seed, "weights"))
            networks, discriminators = build_autoencoders(config.model), build_discriminators(config.model)
            extras = LossExtras(config.loss, networks)
        of_generators, of_discriminators = extras.trained_with("generators"), extras.trained_with("discriminators")
        generator_modules = nn.ModuleDict({"networks": networks, "extras": of_generators})
        discriminator_modules = nn.ModuleDict({"discriminators": discriminators, "extras": of_discriminators})
        for network in (networks, discriminators):
            network.to(memory_format=torch.channels_last)
        networks.checkpoint_activations(config.train.checkpoint_activations)
        decay = config.model.ema_decay
        super().__init__(config, device, precision, ranks, generator_modules, discriminator_modules, networks, decay)
        self.config, self.networks, self.extras = config, networks, extras.to(device)
        self.optimizer_generator.register_step_pre_hook(
            lambda *_: self.extras.before_update(self.networks, config.optimizer.weight_decay)
        )
        self.compiled = False

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
        self.set_learning_rates()

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

    def _stateful(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return super()._stateful() | {"networks": self.networks, "extras": self.extras}


def _means(terms: list[Terms]) -> Terms:
    """Average each term over the microbatches."""
    return {name: torch.stack([t[name].detach() for t in terms]).mean() for name in (terms[0] if terms else ())}
