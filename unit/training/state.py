"""The state that training changes, whatever it trains: what the loop, the checkpoints and the logs use of a trainer."""

from __future__ import annotations

import copy
import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from unit.config import RunConfig
from unit.domains import PerDomain
from unit.model.losses import Logits
from unit.model.objective import Terms
from unit.training.distributed import Ranks
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


class TrainingState(ABC):
    """Two optimizers with their networks, an EMA and the number of steps; a subclass adds the step.

    Each rank has one. All ranks stay equal: same initial weights, same averaged gradients.

    Args:
        config: of optimizers and seed.
        device: to which all modules are moved.
        precision: of the convolutions.
        ranks: the processes that train together.
        generator_modules: everything that the generators' optimizer updates.
        discriminator_modules: everything that the discriminators' optimizer updates, the "discriminators" among it.
        averaged: the network whose EMA is the product of the training.
        ema_decay: of the EMA; 0: it is always equal to the network.
    """

    discriminators: nn.Module
    ema: nn.Module

    def __init__(
        self,
        config: RunConfig,
        device: torch.device,
        precision: str,
        ranks: Ranks,
        generator_modules: nn.ModuleDict,
        discriminator_modules: nn.ModuleDict,
        averaged: nn.Module,
        ema_decay: float,
    ) -> None:
        self.device, self.precision, self.ranks = device, precision, ranks
        self.generator_modules = generator_modules.to(device)
        self.discriminator_modules = discriminator_modules.to(device)
        self.discriminators = discriminator_modules["discriminators"]
        self._averaged, self._ema_decay = averaged, ema_decay
        self.ema = copy.deepcopy(averaged).requires_grad_(False).eval()
        self._rates, self._pretrained = config.optimizer, config.train.init_from is not None
        self.optimizer_generator = self._adam(self.generator_modules, self._rates.learning_rate_generator)
        self.optimizer_discriminator = self._adam(self.discriminator_modules, self._rates.learning_rate_discriminator)
        self.steps_done = 0
        self.rollbacks = 0
        """number of rollbacks after NaN or Inf; it seeds the noise"""
        self.mid_step = False
        """D has been updated in a step that is not finished"""
        self.finite = FiniteWatch(device, ranks)

    def _adam(self, modules: nn.Module, rate: float) -> torch.optim.Adam:
        betas, decay = (self._rates.beta1, self._rates.beta2), self._rates.weight_decay
        return torch.optim.Adam(modules.parameters(), rate, betas, weight_decay=decay, fused=True)

    @abstractmethod
    def step(self, batch: Any) -> StepRecord:
        """Update everything once; raises `NonFiniteError` for NaN or Inf."""

    # -- used by the steps ---------------------------------------------------------------------------------------------

    def set_learning_rates(self) -> None:
        """Give both optimizers the rates of the schedule for the next step."""
        factor = self._rates.rate_factor(self.steps_done)
        self.optimizer_generator.param_groups[0]["lr"] = factor * self._rates.learning_rate_generator
        self.optimizer_discriminator.param_groups[0]["lr"] = factor * self._rates.learning_rate_discriminator

    def _update(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Take one step along the gradients' mean over all ranks."""
        self.ranks.average_gradients(network.parameters())
        gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
        self._require_finite("the gradient of", _norms(gradients))
        optimizer.step()

    def _update_ema(self) -> None:
        """Update the EMA with decay min(d, (1 + n) / (10 + n)) after n steps: warm-up, for random initial weights."""
        warm_up = 1.0 if self._pretrained else (1 + self.steps_done) / (10 + self.steps_done)
        decay = min(self._ema_decay, warm_up)
        update = get_ema_multi_avg_fn(decay)
        update(list(self.ema.parameters()), [p.detach() for p in self._averaged.parameters()], None)

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
            "discriminators": self.discriminators,
            "ema": self.ema,
            "optimizer_generator": self.optimizer_generator,
            "optimizer_discriminator": self.optimizer_discriminator,
        }


def _require_fitting(optimizer: torch.optim.Optimizer) -> None:
    """Compare shapes, which torch does not, although fused Adam reads and writes beyond a smaller tensor's end."""
    for parameter, state in optimizer.state.items():
        expected = {"step": (), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}
        if {name: tensor.shape for name, tensor in state.items()} != expected:
            raise ValueError("the optimizer's state is that of other parameters")


def _norms(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict(zip(tensors, torch._foreach_norm(list(tensors.values())), strict=True))
