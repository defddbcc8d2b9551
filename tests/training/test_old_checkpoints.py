"""Checkpoints of the version before, whose networks listed shared layers once for each domain, go on bit for bit."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tiny import tiny
from tests.training.test_trainer import assert_same_weights, batch
from unit.config import Config
from unit.training.old_checkpoints import upgraded
from unit.training.trainer import Trainer

CPU = torch.device("cpu")

OLD_NAMES = {
    "encoders.a.private.": "encoder.private.a.",
    "encoders.a.shared.": "encoder.shared.",
    "encoders.b.private.": "encoder.private.b.",
    "encoders.b.shared.": "encoder.shared.",
    "generators.a.shared.": "generator.shared.",
    "generators.a.private.": "generator.private.a.",
    "generators.b.shared.": "generator.shared.",
    "generators.b.private.": "generator.private.b.",
}
"""Prefixes of tensor names and what they are called now, in the order of an old state."""

OLD_ORDER = (
    "networks.encoder.private.a.",
    "networks.encoder.shared.",
    "networks.encoder.private.b.",
    "networks.generator.shared.",
    "networks.generator.private.a.",
    "networks.generator.private.b.",
    "extras.patch_nce.",
)
"""In which the old optimizer numbered the parameters, by their present names."""


def old_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        old + name.removeprefix(current): tensor
        for old, current in OLD_NAMES.items()
        for name, tensor in tensors.items()
        if name.startswith(current)
    }


def old_state(trainer: Trainer) -> dict[str, Any]:
    """Return the trainer's state in the form of the version before."""
    state = copy.deepcopy(trainer.state_dict())
    current_order = [name for name, _ in trainer.generator_modules.named_parameters()]
    old_order = [name for prefix in OLD_ORDER for name in current_order if name.startswith(prefix)]
    assert sorted(old_order) == sorted(current_order)
    optimizer = state["optimizer_generator"]
    moved = {old_order.index(current_order[k]): value for k, value in optimizer["state"].items()}
    old = {
        "steps_done": state["steps_done"],
        "rollbacks": state["rollbacks"],
        "networks": old_tensors(state["networks"]),
        "discriminators": state["discriminators"],
        "average": old_tensors(state["ema"]),
        "optimizer_generator": optimizer | {"state": dict(sorted(moved.items()))},
        "optimizer_discriminator": state["optimizer_discriminator"],
    }
    if trainer.config.loss.patch_nce:
        projector = {name.removeprefix("patch_nce."): tensor for name, tensor in state["extras"].items()}
        old["projector"] = projector
    return old


@pytest.mark.parametrize(
    "config",
    [
        tiny(),
        tiny(model={"shared_blocks": 0}),
        tiny(model={"normalization": "group", "spectral_norm": True}),
        tiny(loss={"patch_nce": 1.0}),
    ],
    ids=["paper", "nothing shared", "group norm, spectral norm", "patch_nce"],
)
def test_training_goes_on_from_an_old_checkpoint_bit_for_bit(config: Config) -> None:
    uninterrupted, resumed = Trainer(config, CPU, "fp32"), Trainer(config, CPU, "fp32")
    for step in range(2):
        uninterrupted.step(batch(step))
    old = old_state(uninterrupted)
    assert any(name.startswith("encoders.b.shared.") for name in old["networks"]) == (config.model.shared_blocks > 0)
    resumed.load_state_dict(old)
    assert (resumed.steps_done, resumed.digest()) == (2, uninterrupted.digest())
    for trainer in (uninterrupted, resumed):
        for step in (2, 3):
            trainer.step(batch(step))
    assert_same_weights(uninterrupted, resumed)
    assert uninterrupted.digest() == resumed.digest()


def test_a_checkpoint_before_the_first_step_has_no_optimizer_state_to_move() -> None:
    trainer, resumed = (Trainer(tiny(), CPU, "fp32") for _ in range(2))
    resumed.load_state_dict(old_state(trainer))
    for t in (trainer, resumed):
        t.step(batch(0))
    assert_same_weights(trainer, resumed)


def test_a_current_state_is_loaded_as_it_is() -> None:
    trainer = Trainer(tiny(), CPU, "fp32")
    trainer.step(batch(0))
    state = trainer.state_dict()
    assert upgraded(state, [name for name, _ in trainer.generator_modules.named_parameters()]) is state


def test_upgrading_changes_nothing_in_the_state_it_is_given() -> None:
    trainer = Trainer(tiny(), CPU, "fp32")
    trainer.step(batch(0))
    old = old_state(trainer)
    keys = [*old, *old["networks"], *old["optimizer_generator"]["state"]]
    upgraded(old, [name for name, _ in trainer.generator_modules.named_parameters()])
    assert keys == [*old, *old["networks"], *old["optimizer_generator"]["state"]]
