"""Checkpoints of the version before: other names, and other parameter order in the generators' optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unit.model.old_names import current_name


def upgraded(state: dict[str, Any], generator_parameters: Sequence[str]) -> dict[str, Any]:
    """Return a trainer's state in this version's form; a current one unchanged.

    Args:
        state: what `Trainer.state_dict` returned.
        generator_parameters: the names of what the generators' optimizer updates now, in its order.
    """
    if "average" not in state:
        return state
    projector = {f"patch_nce.{name}": tensor for name, tensor in state.get("projector", {}).items()}
    state = {name: value for name, value in state.items() if name not in ("average", "projector")} | {
        "networks": _renamed(state["networks"]),
        "ema": _renamed(state["average"]),
        "extras": projector,
    }
    order = [f"networks.{name}" for name in state["networks"]] + [f"extras.{name}" for name in projector]
    optimizer = state["optimizer_generator"]
    moved = {generator_parameters.index(order[k]): value for k, value in optimizer["state"].items()}
    return state | {"optimizer_generator": optimizer | {"state": moved}}


def _renamed(tensors: dict[str, Any]) -> dict[str, Any]:
    """Shared layers, which stood there twice, once, at the first place."""
    renamed: dict[str, Any] = {}
    for name, tensor in tensors.items():
        renamed.setdefault(current_name(name), tensor)
    return renamed
