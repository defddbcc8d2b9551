"""`train.compile`: torch.compile for the training step, which "auto" chooses by timing it."""

from __future__ import annotations

import logging

import torch

from unit.domains import PerDomain
from unit.training.trainer import Trainer

log = logging.getLogger(__name__)

_WARM_UP_STEPS, _TIMED_STEPS = 4, 8


def compile_as_configured(trainer: Trainer) -> None:
    """Compile the trainer's step if `train.compile` says so; with "auto": on CUDA, if that makes steps faster.

    On CPUs it never did (docs/performance.md). Rank 0 decides for all.
    """
    config = trainer.config.train
    compiled = config.compile == "on"
    if config.compile == "auto" and trainer.device.type == "cuda" and not config.deterministic:
        compiled = trainer.ranks.broadcast(_is_faster_compiled(trainer) if trainer.ranks.is_main else False)
    if compiled:
        trainer.compile()


def _is_faster_compiled(trainer: Trainer) -> bool:
    """Time steps of a second trainer, which shares no state with the given one, before and after compiling them."""
    trial = Trainer(trainer.config, trainer.device, trainer.precision)
    log.info("train.compile: timing compiled steps, which takes a minute or two")
    try:
        plain = _seconds_per_step(trial)
        trial.compile()
        compiled = _seconds_per_step(trial)
    except Exception as error:  # torch.compile lacks a compiler, Triton, memory or something else
        reason = str(error).partition("\n")[0] or type(error).__name__
        log.warning("train.compile: steps can't be compiled here (%s); continuing without", reason)
        return False
    log.info("train.compile: %.3g s per step, compiled %.3g s", plain, compiled)
    return compiled < plain


def _seconds_per_step(trainer: Trainer) -> float:
    from torch.utils.benchmark import Timer  # which warns where CUDA is installed but there is no GPU

    train, size = trainer.config.train, trainer.config.data.crop_size
    shape = (train.batch_size * train.grad_accum_steps, 3, size, size)
    images = PerDomain.of(lambda _: torch.rand(shape, device=trainer.device) * 2 - 1)
    timer = Timer("step(images)", globals={"step": trainer.step, "images": images}, num_threads=torch.get_num_threads())
    timer.timeit(_WARM_UP_STEPS)
    return timer.timeit(_TIMED_STEPS).mean
