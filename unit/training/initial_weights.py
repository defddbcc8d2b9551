"""`train.init_from`: start a run from the weights of a finished one, and remember what that one learned."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from unit.config import ModelConfig
from unit.errors import ConfigError, ModelError, escape
from unit.training import checkpoint
from unit.training.old_checkpoints import upgraded
from unit.training.trainer import Trainer
from unit.translation.model_file import MODEL_FILE, load_model

log = logging.getLogger(__name__)

_AUTOENCODERS = ["channels", "downsamples", "residual_blocks", "shared_blocks"]
_AUTOENCODERS += ["normalization", "upsampling", "downsampling", "pixel_skip"]
_DISCRIMINATORS = ["discriminator_channels", "discriminator_scales", "discriminator_layers", "spectral_norm"]
"""The keys that make networks what they are."""


def initialize(trainer: Trainer) -> None:
    """Give a new trainer the weights of `train.init_from`, and what `loss.memory` keeps them near.

    A model file gives encoders and generators their EMA weights. A run directory gives all of them, their EMA, the
    discriminators and both optimizers as they are in its newest checkpoint; without checkpoints, what its model gives.
    The trainer stays at step 0, and neither schedule nor random numbers know of the earlier steps.

    Raises:
        ConfigError: the networks are others.
        ModelError: no such model; a damaged one; or `loss.memory` is on and there is no importance file that fits.
    """
    config, source = trainer.config, Path(trainer.config.train.init_from or "")
    networks, source_config, _, step = load_model(source)
    saved = checkpoint.load_newest(source / "checkpoints") if source.is_dir() else None
    _require_same_networks(config.model, source_config.model, source, with_discriminators=saved is not None)
    if saved is None:
        for part in (trainer.networks, trainer.ema):
            part.load_state_dict(networks.state_dict())
        log.info("starting from %s, step %d: its weights; discriminators and optimizers are new", escape(source), step)
    else:
        try:
            trainer.load_state_dict(_at_step_0(saved["trainer"], trainer))
        except Exception as error:  # a foreign file may hold anything
            raise ModelError(
                f"{escape(source)}: its newest checkpoint does not fit its model; give {MODEL_FILE} of it"
            ) from error
        step = int(saved["trainer"]["steps_done"])
        log.info("starting from %s, step %d: its weights, discriminators and optimizers", escape(source), step)
    if config.loss.memory:
        _remember(trainer, source if source.is_dir() else source.parent)


def _remember(trainer: Trainer, folder: Path) -> None:
    """Keep the weights near the EMA's, on which `folder`'s importance file was measured."""
    from unit.model.extras.memory import Extra as Memory  # here, since what is off is not imported
    from unit.training.importance import IMPORTANCE_FILE, read_importance

    memory = trainer.extras["memory"]
    assert isinstance(memory, Memory)
    memory.remember(trainer.ema, read_importance(folder / IMPORTANCE_FILE, trainer.ema))


def _at_step_0(state: dict[str, Any], trainer: Trainer) -> dict[str, Any]:
    """Return a trainer's saved state with the parts that belong to the new run alone as they are in `trainer`.

    An extra that both have goes on; where they differ, the moments of the optimizer that trains them are the networks'
    alone, whose parameters come first in it.
    """
    now = trainer.state_dict()
    state = upgraded(state, [name for name, _ in trainer.generator_modules.named_parameters()])
    common = [key for key in trainer.extras if key != "memory" and _same_shapes(key, now["extras"], state["extras"])]
    extras = now["extras"] | {name: t for name, t in state["extras"].items() if name.partition(".")[0] in common}
    kept: dict[str, Any] = {"steps_done": 0, "rollbacks": 0, "extras": extras}
    for name, networks, modules in (
        ("optimizer_generator", trainer.networks, trainer.generator_modules),
        ("optimizer_discriminator", trainer.discriminators, trainer.discriminator_modules),
    ):
        saved, count = state[name], len(list(networks.parameters()))
        trained = [key for key, extra in modules["extras"].items() if any(True for _ in extra.parameters())]  # type: ignore[operator]
        sizes = [len(optimizer["param_groups"][0]["params"]) for optimizer in (saved, now[name])]
        if sizes[0] == sizes[1] and set(trained) <= set(common):
            count = sizes[0]
        kept[name] = now[name] | {"state": {k: moment for k, moment in saved["state"].items() if k < count}}
    return state | kept


def _same_shapes(extra: str, now: dict[str, Any], saved: dict[str, Any]) -> bool:
    """True if an extra's state has the same names and shapes in both."""
    shapes = [{n: t.shape for n, t in state.items() if n.partition(".")[0] == extra} for state in (now, saved)]
    return shapes[0] == shapes[1]


def _require_same_networks(now: ModelConfig, before: ModelConfig, source: Path, *, with_discriminators: bool) -> None:
    """Refuse other networks; a model file, which has no discriminators, goes with any."""
    for key in _AUTOENCODERS + (_DISCRIMINATORS if with_discriminators else []):
        old, new = getattr(before, key), getattr(now, key)
        if key == "discriminator_channels":
            old, new = old or before.channels, new or now.channels
        if old != new:
            advice = f", or give {MODEL_FILE} of it to start with new ones" if key in _DISCRIMINATORS else ""
            raise ConfigError(
                f"model.{key}: is {new}, but the weights of {escape(source)} are of networks with {old}; "
                f"set it to {old}{advice}"
            )
