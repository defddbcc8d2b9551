"""A run is fitted into a time: closed forms of made-up speeds."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.tiny import TINY, tiny
from unit.config import Config
from unit.training import minutes
from unit.training.minutes import FITTED_KEYS, affordable_steps, fit, measuring_seconds, training_seconds
from unit.training.speed import Pauses

PAUSES = Pauses(sample=2.0, validation=5.0, checkpoint=1.0)
FREE = Pauses(0.0, 0.0, 0.0)
FALLING = {"schedule": "linear", "decay_start": 50, "decay_end": 200}


def run_seconds(config: Config, step: float, pauses: Pauses, steps: int) -> float:
    """How long a run of so many steps takes, counted event by event."""
    train = config.train
    often = {"sample": train.sample_every, "validation": train.validate_every, "checkpoint": train.checkpoint_every}
    held_up = sum(vars(pauses)[name] * (steps // every) for name, every in often.items())
    return steps * step + held_up


@pytest.mark.parametrize("seconds", [30, 120, 1800, 24 * 3600, 30 * 24 * 3600])
@pytest.mark.parametrize("step", [0.003, 0.2, 5.0])
@pytest.mark.parametrize("pauses", [FREE, PAUSES])
@pytest.mark.parametrize("schedule", [{}, FALLING])
def test_a_fitted_run_ends_in_time_and_uses_it(
    seconds: float, step: float, pauses: Pauses, schedule: dict[str, Any]
) -> None:
    config = fit(tiny(optimizer=schedule), step, pauses, seconds)
    training = training_seconds(pauses, seconds)
    assert config.train.max_minutes == pytest.approx(training / 60, abs=1e-3)
    steps = min(config.train.steps, affordable_steps(step, pauses, seconds))
    taken = run_seconds(config, step, pauses, steps)
    pause = sum(vars(pauses).values())
    assert taken <= training + pause + step
    assert taken >= 0.75 * training - 2 * pause - step
    if schedule and steps > 10:  # else rounding is more than the slack
        assert taken <= 0.95 * training + pause, "the rates reach 0 before train.max_minutes ends the run"


def test_the_parts_of_a_run_add_up_to_its_time() -> None:
    """The first sample and checkpoint, training, the last checkpoint and validation, and measuring."""
    training, measuring = training_seconds(PAUSES, 600), 0.1 * 600
    starting, ending = 2 + 2 + 1, 3 + 5 + 1
    assert training + starting + ending + measuring == pytest.approx(600)
    assert training_seconds(PAUSES, 3) == training_seconds(PAUSES, -10) == 0


def test_a_falling_schedule_ends_with_the_run_in_the_same_proportion() -> None:
    config = fit(tiny(optimizer=FALLING), 0.1, FREE, 1000)
    optimizer, steps = config.optimizer, config.train.steps
    assert steps == int(0.9 * affordable_steps(0.1, FREE, 1000)) == pytest.approx(0.9 * 8950, rel=0.01)
    assert optimizer.decay_end == steps
    assert optimizer.decay_start == steps // 4
    assert optimizer.rate_factor(steps - 1) < 1e-3


def test_at_constant_rates_the_time_ends_the_run() -> None:
    """So that the same command, given again, trains as long again."""
    assert fit(tiny(train={"steps": 10**6}), 0.1, FREE, 1000).train.steps == 10**6
    assert fit(TINY, 0.1, FREE, 1000).train.steps == affordable_steps(0.1, FREE, 1000) > 8000


@pytest.mark.parametrize("seconds", [0.001, 1, 40, 1e4, 1e7])
def test_every_kind_of_event_happens_a_few_times_and_not_too_often(seconds: float) -> None:
    config, step = fit(tiny(train={"log_every": 20}), 0.25, PAUSES, seconds), 0.25
    steps = affordable_steps(step, PAUSES, seconds)
    for name, cost in (("sample", 2.0), ("validate", 5.0), ("checkpoint", 1.0)):
        every = config.to_flat_dict()[f"train.{name}_every"]
        count = steps / every
        assert count <= max(2, 0.05 * training_seconds(PAUSES, seconds) / cost) + 1e-9
        if steps > 100:
            assert count > 1.9
            assert every * step < 2000 or count > 19, "not rarer than every half hour"
    assert 1 <= config.train.log_every <= 20
    assert steps / config.train.log_every >= min(steps, 50) or config.train.log_every == 20


@pytest.mark.parametrize("key", sorted(FITTED_KEYS))
def test_a_key_that_was_given_stays(key: str) -> None:
    config = tiny(optimizer=FALLING)
    fitted = fit(config, 0.1, PAUSES, 600, {key}).to_flat_dict()
    assert fitted[key] == config.to_flat_dict()[key]
    changed = {name for name, value in fitted.items() if value != config.to_flat_dict()[name]}
    assert changed <= FITTED_KEYS
    others = FITTED_KEYS - {key, "train.log_every"}
    if key.startswith("optimizer."):
        others -= {"optimizer.decay_start", "optimizer.decay_end"}  # one of them makes no sense without the other
    if key == "train.steps":
        assert fitted["optimizer.decay_end"] == config.train.steps
    assert changed >= others - {"optimizer.decay_start"}


def test_kept_checkpoints_keep_their_interval() -> None:
    config = tiny(train={"checkpoint_every": 2, "keep_every": 4})
    assert fit(config, 0.1, PAUSES, 600).train.checkpoint_every == 2


def test_no_steps_is_no_error() -> None:
    assert fit(tiny(train={"steps": 0}), 0.1, PAUSES, 600, {"train.steps"}).train.steps == 0


def test_measuring_shares_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minutes.time, "monotonic", lambda: 1000.0)
    assert measuring_seconds(math.inf) is None
    assert measuring_seconds(1043.0) == 10
    assert measuring_seconds(10**6) == 120
    assert measuring_seconds(900.0) == 0
