"""Fit a run into a time: its steps, its learning-rate schedule, and how often it samples, validates and saves."""

from __future__ import annotations

import math
import time
from collections.abc import Collection
from typing import Any

from unit.config import Config
from unit.training.speed import Pauses

FITTED_KEYS = frozenset(
    {"train.steps", "train.max_minutes", "train.compile", "optimizer.decay_start", "optimizer.decay_end"}
    | {f"train.{event}_every" for event in ("log", "sample", "checkpoint", "validate")}
)
"""The keys that `fit` sets."""
_SCHEDULE_KEYS = {"optimizer.decay_start", "optimizer.decay_end"}
_START_SECONDS = 2.0
"""From the measurement to the first step, besides the first sample and checkpoint."""
_REPORT_SECONDS = 3.0
"""The report without its translations, and the rest of the end."""
_END_SHARE = 0.1
"""Part of the time kept for measuring full-size translations at the end, and for the report's."""
_MEASUREMENTS = 4
"""Measurements at the end, each of which takes up to the same time: native, guided, and two for the report."""
_MAX_MEASURING_SECONDS = 120.0
_PAUSE_SHARE = 0.05
"""Part of the training time that samples may take, and validations, and checkpoints."""
_FEW, _MANY = 2, 20
"""Samples, validations and checkpoints of a run, or more if that is less often than every `_RARELY` seconds."""
_RARELY = 1800.0
_SLACK = 0.1
"""Part of the steps left out where the rates must reach 0 in time: a short measurement errs, machines are shared."""
_LOG_LINES = 50


def training_seconds(pauses: Pauses, seconds: float) -> float:
    """Return how long to train so that a run ends in `seconds`, its start and its measuring at the end included."""
    start = _START_SECONDS + pauses.sample + pauses.checkpoint
    end = _REPORT_SECONDS + pauses.validation + pauses.checkpoint + _END_SHARE * max(0.0, seconds)
    return max(0.0, seconds - start - end)


def measuring_seconds(end: float) -> float | None:
    """Return the seconds for each measurement of a run that must have ended at `end` (of `time.monotonic`).

    None: two minutes, as nothing has to end.
    """
    if end == math.inf:
        return None
    return min(_MAX_MEASURING_SECONDS, max(0.0, end - time.monotonic() - _REPORT_SECONDS) / _MEASUREMENTS)


def affordable_steps(step: float, pauses: Pauses, seconds: float) -> int:
    """Return how many steps of `step` seconds a run of `seconds` makes, besides its pauses; at least one."""
    training = training_seconds(pauses, seconds)
    held_up = sum(_count(cost, training) * cost for cost in vars(pauses).values())
    return max(1, int((training - held_up) / step))


def fit(config: Config, step: float, pauses: Pauses, seconds: float, fixed: Collection[str] = ()) -> Config:
    """Return the configuration of a run that ends in `seconds`.

    A falling schedule ends with the last step. At constant rates the time alone ends the run. In either case
    `train.max_minutes` ends it if steps take longer than measured.

    Args:
        config: all other settings.
        step: seconds of a step.
        pauses: seconds of what comes between steps.
        seconds: the time from now to the end of the run, measuring included.
        fixed: keys that stay as they are.
    """
    training, affordable = training_seconds(pauses, seconds), affordable_steps(step, pauses, seconds)
    falling = config.optimizer.schedule == "linear" and not _SCHEDULE_KEYS & set(fixed)
    steps = max(1, int((1 - _SLACK) * affordable)) if falling else max(config.train.steps, affordable)
    if "train.steps" in fixed:
        steps = config.train.steps
    made = max(1, min(steps, affordable))
    every = {name: math.ceil(made / _count(cost, training)) for name, cost in vars(pauses).items()}
    values: dict[str, Any] = {
        "train.steps": steps,
        "train.max_minutes": round(training / 60, 3),
        "train.compile": "off",  # whether it helps takes a trial of minutes
        "train.log_every": max(1, min(config.train.log_every, made // _LOG_LINES)),
        "train.sample_every": every["sample"],
        "train.validate_every": every["validation"],
    }
    if config.train.keep_every is None:  # which must be a multiple of it
        values["train.checkpoint_every"] = every["checkpoint"]
    if falling and config.optimizer.decay_end:
        start = steps * config.optimizer.decay_start // config.optimizer.decay_end
        values |= {"optimizer.decay_start": start, "optimizer.decay_end": steps}
    kept = {key: value for key, value in values.items() if key not in fixed}
    return Config.from_flat_dict({**config.to_flat_dict(), **kept})


def _count(cost: float, training: float) -> int:
    """Return how often something that takes `cost` seconds is done in `training` seconds."""
    return max(_FEW, min(int(_PAUSE_SHARE * training / max(cost, 1e-3)), max(_MANY, int(training / _RARELY))))
