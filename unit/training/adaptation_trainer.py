"""One step of domain adaptation: the discriminators, which are also the classifier, then encoders and generators."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from unit.data.digit_batches import DigitBatch
from unit.devices import autocast
from unit.digits.config import AdaptationConfig
from unit.domains import Domain, PerDomain
from unit.model.adaptation import (
    AdaptationPass,
    adaptation_pass,
    autoencoder_terms,
    consistency,
    discriminator_terms,
    distort,
    generator_terms,
    judge,
)
from unit.model.digit_networks import (
    ClassifyingDiscriminators,
    Judgement,
    build_classifying_discriminators,
    build_digit_autoencoders,
)
from unit.model.losses import Logits, class_cross_entropy
from unit.model.networks import TRANSLATIONS
from unit.model.noise import Seeds
from unit.model.objective import Terms, total
from unit.seeds import seed_for
from unit.training.distributed import SINGLE_PROCESS, Ranks
from unit.training.state import StepRecord, TrainingState


class AdaptationTrainer(TrainingState):
    """The networks of domain adaptation, and one step of their training; the EMA is that of the classifier."""

    discriminators: ClassifyingDiscriminators
    ema: ClassifyingDiscriminators

    def __init__(
        self, config: AdaptationConfig, device: torch.device, precision: str, ranks: Ranks = SINGLE_PROCESS
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(config.train.seed, "weights"))
            networks = build_digit_autoencoders(config)
            discriminators = build_classifying_discriminators(config)
        for network in (networks, discriminators):
            network.to(memory_format=torch.channels_last)
        modules = nn.ModuleDict({"networks": networks}), nn.ModuleDict({"discriminators": discriminators})
        super().__init__(config, device, precision, ranks, *modules, discriminators, config.model.ema_decay)
        self.config, self.networks = config, networks

    def step(self, batch: DigitBatch) -> StepRecord:
        """Update D with its two heads, then E and G, then D's EMA.

        Without `loss.adversarial` nothing is generated, and D's classifier alone is trained.

        Raises:
            NonFiniteError: a loss term or a gradient is NaN or Inf.
        """
        loss, D = self.config.loss, self.discriminators  # noqa: N806 - the paper's name
        amp, seeds = partial(autocast, self.device, self.precision), self._seeds(len(batch.images.a))
        self.set_learning_rates()
        out, g_terms = None, {}
        if loss.adversarial:
            with amp():
                out = adaptation_pass(self.networks, batch.images, seeds)
            g_terms = autoencoder_terms(out, batch.images, loss)
            self._require_finite("the loss term", g_terms)

        # Discriminators and classifier, with E and G fixed.
        D.requires_grad_(True)
        self.optimizer_discriminator.zero_grad()
        with amp(), self._seeded_dropout("D"):
            judged = judge(D, self._discriminator_inputs(batch, out, seeds))
        d_terms = self._class_terms(judged, batch)
        fake = {(i, j): judged[f"fake {i}2{j}"] for i, j in (out.images if out else ())}
        if out:
            d_terms |= discriminator_terms({i: judged[f"real {i}"] for i in Domain}, fake, loss)
        self._backward(d_terms)
        self._update(D, self.optimizer_discriminator)
        self.mid_step = True

        # Encoders and generators, with D fixed.
        D.requires_grad_(False)
        if out:
            self.optimizer_generator.zero_grad()
            with amp(), self._seeded_dropout("G"):
                judged_now = out.images if loss.judge_reconstructions else {d: out.images[d] for d in TRANSLATIONS}
                fake_now = judge(D, {(i, j): (j, x) for (i, j), x in judged_now.items()})
            g_terms |= generator_terms(fake_now, loss)
            if loss.translated_classes and batch.labels.a is not None:
                logits = fake_now[Domain.A, Domain.B].classes
                g_terms["translated_classes_a"] = loss.translated_classes * class_cross_entropy(logits, batch.labels.a)
            self._backward(g_terms)
            self._update(self.generator_modules, self.optimizer_generator)

        self.steps_done, self.mid_step = self.steps_done + 1, False
        self._update_ema()
        return _record(g_terms, d_terms, judged)

    def _discriminator_inputs(
        self, batch: DigitBatch, out: AdaptationPass | None, seeds: Seeds
    ) -> dict[str, tuple[Domain, Tensor]]:
        """Return all that D learns from in a step, by what it is, with the domain whose D judges it."""
        loss = self.config.loss

        def distorted(images: Tensor, purpose: str, i: Domain) -> Tensor:
            return distort(images, seeds(f"distortion {purpose}", i), loss.distortion)

        inputs: dict[str, tuple[Domain, Tensor]] = {}
        for i in Domain:
            if batch.labels[i] is not None and (loss.distortion or not out):
                inputs[f"labelled {i}"] = i, distorted(batch.images[i], "labelled", i)
        if loss.consistency:
            inputs["unlabelled"] = Domain.B, distorted(batch.images.b, "unlabelled", Domain.B)
        if out:
            inputs |= {f"real {i}": (i, batch.images[i]) for i in Domain}
            inputs |= {f"fake {i}2{j}": (j, x.detach()) for (i, j), x in out.images.items()}
            if loss.translated_classes:
                translation = out.images[TRANSLATIONS[0]].detach()
                inputs["translated"] = Domain.B, distorted(translation, "translated", Domain.A)
        return inputs

    def _class_terms(self, judged: dict[str, Judgement], batch: DigitBatch) -> Terms:
        """Return the classifier's weighted terms."""
        loss, terms = self.config.loss, Terms()
        for i in Domain:
            if (labels := batch.labels[i]) is not None:
                labelled = judged.get(f"labelled {i}") or judged[f"real {i}"]
                terms[f"classes_{i}"] = loss.classes * class_cross_entropy(labelled.classes, labels)
        if "translated" in judged and batch.labels.a is not None:
            on_translations = class_cross_entropy(judged["translated"].classes, batch.labels.a)
            terms["translated_classes"] = loss.translated_classes * on_translations
        if "unlabelled" in judged:
            with torch.no_grad(), autocast(self.device, self.precision):
                teacher = self.ema.classify(batch.images.b, Domain.B)
            agreement = consistency(teacher, judged["unlabelled"].classes, loss.confidence)
            terms["consistency"] = loss.consistency * agreement
        return terms

    def _seeds(self, size: int) -> Seeds:
        """Seeds of every random draw: functions of the images' indices in the global sequence."""
        seed = self.config.train.seed
        if self.rollbacks:
            seed = seed_for(seed, "rollback", self.rollbacks)
        indices = self.ranks.sample_indices(self.steps_done, size)
        return lambda purpose, domain: [seed_for(seed, purpose, domain, index) for index in indices]

    @contextmanager
    def _seeded_dropout(self, purpose: str) -> Iterator[None]:
        """Draw dropout as a function of the step, not of what was drawn before."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed_for(self.config.train.seed, "dropout", purpose, self.steps_done, self.rollbacks))
            yield

    def _backward(self, terms: Terms) -> None:
        self._require_finite("the loss term", terms)
        total(terms).backward()

    def _stateful(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return super()._stateful() | {"networks": self.networks}


def _record(g_terms: Terms, d_terms: Terms, judged: dict[str, Judgement]) -> StepRecord:
    """Return what a step logs: the mean logits of translations only, as in UNIT."""
    real: list[PerDomain[Logits]] = []
    fake: list[PerDomain[Logits]] = []
    if g_terms:
        real = [PerDomain.of(lambda i: [judged[f"real {i}"].logit])]
        fake = [PerDomain.of(lambda j: [judged[f"fake {j.other}2{j}"].logit])]
    return StepRecord(
        {k: v.detach() for k, v in g_terms.items()}, {k: v.detach() for k, v in d_terms.items()}, real, fake
    )
