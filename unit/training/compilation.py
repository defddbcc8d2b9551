"""`train.compile`: whether torch compiles the step, which "auto" decides by trying."""

from __future__ import annotations

import logging
import time
from statistics import median

import torch
from torch import Tensor

from unit.devices import synchronize
from unit.domains import PerDomain
from unit.training.trainer import Trainer

log = logging.getLogger(__name__)

_WARM_UP, _ROUNDS = 4, 8


def compile_as_configured(trainer: Trainer) -> None:
    """Compile the trainer's step if `train.compile` wants it; "auto": on CUDA, if steps of a trial prove faster.

    On a CPU they never did (docs/performance.md). All ranks do what rank 0 finds.
    """
    config = trainer.config.train
    wanted = config.compile == "on"
    if config.compile == "auto" and trainer.device.type == "cuda" and not config.deterministic:
        wanted = trainer.ranks.broadcast(_pays(trainer) if trainer.ranks.is_main else False)
    if wanted:
        trainer.compile()


def _pays(trainer: Trainer) -> bool:
    trial, images = Trainer(trainer.config, trainer.device, trainer.precision), _images(trainer)
    log.info("train.compile: trying whether compiled steps are faster here; it takes a minute or two")
    try:
        plain = _seconds(trial, images)
        trial.compile()
        compiled = _seconds(trial, images)
    except Exception as error:  # no compiler, no Triton, no memory for it: whatever torch.compile lacks
        log.warning("train.compile: steps can't be compiled here (%s); going on without", str(error).splitlines()[0])
        return False
    log.info("train.compile: %.3g s a step, compiled %.3g s", plain, compiled)
    return compiled < plain


def _images(trainer: Trainer) -> PerDomain[Tensor]:
    train, size = trainer.config.train, trainer.config.data.crop_size
    shape = (train.batch_size * train.grad_accum_steps, 3, size, size)
    return PerDomain.of(lambda _: torch.rand(shape, device=trainer.device) * 2 - 1)


def _seconds(trainer: Trainer, images: PerDomain[Tensor]) -> float:
    seconds = []
    for _ in range(_WARM_UP + _ROUNDS):
        synchronize(trainer.device)
        start = time.perf_counter()
        trainer.step(images)
        synchronize(trainer.device)
        seconds.append(time.perf_counter() - start)
    return median(seconds[_WARM_UP:])
