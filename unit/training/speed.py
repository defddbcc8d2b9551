"""The seconds that the parts of a run take, measured on a trainer that is thrown away afterwards."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from unit.data.bad_images import BadImages
from unit.devices import synchronize
from unit.evaluation.evaluate import Evaluator
from unit.evaluation.features import features_if_installed
from unit.evaluation.grids import sample_grids
from unit.evaluation.st_lpips import st_lpips_if_installed
from unit.model.extras.r1 import INTERVAL
from unit.training.checkpoint import copy_to_cpu
from unit.training.diagnostics import diagnostics, probe_batch
from unit.training.hooks import MAX_VALIDATION_IMAGES
from unit.training.resolve import ResolvedConfig
from unit.training.trainer import Trainer

_FIRST_STEP, _FEWEST_STEPS, _MOST_STEPS = INTERVAL - 4, 6, 6 + 2 * INTERVAL
"""The steps to time: the first is slow and does not count, and one is among the others that R1 makes slower."""
_ENOUGH_SECONDS = 2.0
"""After which no more than the fewest steps are timed."""
_IMAGES = 4
"""Held-out images of each domain whose evaluation is timed."""


@dataclass(frozen=True)
class Pauses:
    """Seconds for which each of these holds training up."""

    sample: float
    """a sample grid and diagnostics"""
    validation: float
    """metrics at the training size"""
    checkpoint: float
    """the copy of the state; it is written in the background"""


def measure_step(resolved: ResolvedConfig, trainer: Trainer, at_most: float = math.inf) -> float:
    """Return the mean seconds of a training step, reading its images included; of several ranks, of the slowest.

    Args:
        resolved: the images and the configuration.
        trainer: makes six steps, more if they are fast, and is of no further use for training.
        at_most: seconds after which fewer steps do; the result may then be too high.
    """
    trainer.steps_done = _FIRST_STEP
    times, steps = [time.perf_counter()], range(_FIRST_STEP, _FIRST_STEP + _MOST_STEPS)
    with closing(resolved.batches(steps, BadImages(resolved.datasets.train.map(len)))) as batches:
        for images in batches:
            trainer.step(images)
            synchronize(resolved.device)
            times.append(time.perf_counter())
            enough = len(times) > _FEWEST_STEPS and times[-1] - times[1] > _ENOUGH_SECONDS
            if any(resolved.ranks.all_reduce_max(int(enough or times[-1] - times[0] > at_most))):
                break
    return max(resolved.ranks.all_gather(_mean_step([end - start for start, end in pairwise(times)])))


def _mean_step(seconds: list[float]) -> float:
    """Average over a period of R1, from the seconds of the steps from `_FIRST_STEP` on."""
    first_lazy = INTERVAL - 1 - _FIRST_STEP
    lazy = seconds[first_lazy::INTERVAL]
    usual = [duration for k, duration in enumerate(seconds) if k > 0 and (k - first_lazy) % INTERVAL] or seconds
    return median(usual) + (max(0.0, median(lazy) - median(usual)) / INTERVAL if lazy else 0.0)


def measure_pauses(resolved: ResolvedConfig, trainer: Trainer) -> Pauses:
    """Time what the main rank does between steps; all ranks get the result.

    Raises:
        UserError: a held-out image can't be read, or the memory is too small.
    """
    with resolved.ranks.fail_together():
        pauses = _measure_pauses(resolved, trainer) if resolved.ranks.is_main else None
    pauses = resolved.ranks.broadcast(pauses)
    assert pauses
    return pauses


def _measure_pauses(resolved: ResolvedConfig, trainer: Trainer) -> Pauses:
    test, data, translator = resolved.datasets.test, resolved.config.data, resolved.translator(trainer)
    features, st_lpips = features_if_installed(resolved.device), st_lpips_if_installed(resolved.device)
    evaluator = Evaluator(test, data, features, at_most=_IMAGES, st_lpips=st_lpips)
    evaluator.metrics(translator)  # the first evaluation also looks at the images themselves
    longest = max(test.images.map(len))
    share = min(longest, MAX_VALIDATION_IMAGES) / min(longest, _IMAGES)
    probes = probe_batch(test.images, data), probe_batch(resolved.datasets.train, data)
    return Pauses(
        sample=_seconds(
            lambda: (sample_grids(translator, test), diagnostics(translator, trainer.discriminators, *probes))
        ),
        validation=share * _seconds(lambda: evaluator.metrics(translator)),
        checkpoint=_seconds(lambda: (copy_to_cpu(trainer.state_dict()), translator.to_bytes())),
    )


def _seconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started
