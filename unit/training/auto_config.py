"""What a command line leaves open: the settings of a run that is there go on; else the time decides, by measurement."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unit.config import CHANGEABLE_ON_RESUME, FOLDER_KEYS, MACHINE_SPECIFIC, Config
from unit.config_file import read_config
from unit.devices import describe, out_of_memory
from unit.errors import ConfigError, UserError
from unit.training import checkpoint
from unit.training.distributed import Ranks
from unit.training.minutes import FITTED_KEYS, affordable_steps, fit, training_seconds
from unit.training.preset_choice import Choice, Rung, ladder
from unit.training.resolve import ResolvedConfig, default_out, explain_errors, resolve
from unit.training.speed import Pauses, measure_pauses, measure_step
from unit.training.trainer import Trainer

log = logging.getLogger(__name__)

_BATCH_KEYS = {"train.batch_size", "train.grad_accum_steps"}
_MEASURING_SHARE = 0.05
"""Part of the time that the measurement of one image size may take."""
_MIN_MEASURING_SECONDS = 2.0
_NO_PAUSES = Pauses(0.0, 0.0, 0.0)
_OVERRIDE = "override with --config, --data.crop_size, --model.channels, --train.steps"


@dataclass(frozen=True)
class AutoConfig:
    """Settles what the command line leaves open, once the ranks, the images and the device are known.

    All ranks call it alike and get the same configuration.
    """

    flags: Mapping[str, Any] = field(default_factory=dict)
    """the keys given on the command line, which hold in any case"""
    choice: Choice | None = None
    """the preset chosen without --config"""
    minutes: float | None = None
    """of --minutes: from `started` to the end of the run, measuring included"""
    started: float = field(default_factory=time.monotonic)
    """by `time.monotonic`"""

    @property
    def end(self) -> float:
        """The time by which the run must have ended, by `time.monotonic`; infinity without --minutes."""
        return math.inf if self.minutes is None else self.started + 60 * self.minutes

    @property
    def _chooses(self) -> bool:
        """True if the settings are this program's choice, not a file's."""
        return self.choice is not None and self.choice.survey is not None

    def resolve(self, config: Config, out: Path | None, ranks: Ranks, *, restart: bool = False) -> ResolvedConfig:
        """Return the configuration that holds; `config` is the preset's or the file's, with the flags.

        Raises:
            UserError: as `unit.training.resolve.resolve`; a held-out image can't be read, or the memory is too small.
        """
        config, resumes = self.continued(config, out, ranks, restart=restart)
        resolved = resolve(config, out, ranks, restart=restart)
        if self.minutes is None:
            return resolved
        with explain_errors(resolved.device):
            resolved = self._with_minutes_left(resolved) if resumes else self._fitted(resolved)
        values = resolved.config.to_flat_dict().items()
        ranks.require_same({key: value for key, value in values if key not in MACHINE_SPECIFIC})
        return resolved

    def continued(
        self, config: Config, out: Path | None, ranks: Ranks, *, restart: bool = False
    ) -> tuple[Config, bool]:
        """Return the settings with which to go on with the run in `out`, and True; without one, `config` and False.

        What decides the result, and was chosen or fitted when the run was started, stays as it was then.
        """
        folder = out or default_out(config.data)
        decides = self._chooses or self.minutes is not None
        recorded = ranks.broadcast(_recorded(folder) if ranks.is_main and decides and not restart else None)
        if not recorded:
            if self.choice and self.minutes is None:
                log.info("%s", self.choice.reason)
            return config, False
        step, before = recorded
        config = self._as_before(config, before)
        log.info("%s: goes on with the settings it was started with (--restart starts again)", folder)
        if step >= config.train.steps:
            longer = f"--restart --minutes {2 * self.minutes:g}" if self.minutes else "--train.steps N"
            log.info("%s: all its %d steps are done; to train longer: %s", folder, step, longer)
        return config, True

    def _as_before(self, now: Config, before: Mapping[str, Any]) -> Config:
        kept = set(FITTED_KEYS) if self.minutes is not None else set()
        if self._chooses:
            kept |= before.keys() - CHANGEABLE_ON_RESUME - MACHINE_SPECIFIC | _BATCH_KEYS
        values = now.to_flat_dict() | {key: before[key] for key in kept} | dict(self.flags)
        if self.minutes is None and "train.steps" not in self.flags and values["optimizer.schedule"] == "linear":
            values["train.steps"] = min(values["train.steps"], values["optimizer.decay_end"])  # the rates are 0 then
        try:
            return Config.from_flat_dict(values)
        except ConfigError:  # the flags contradict the former settings: resuming names the difference
            return now

    def _with_minutes_left(self, resolved: ResolvedConfig) -> ResolvedConfig:
        """Set `train.max_minutes` for this part of a run, unless a flag does."""
        if "train.max_minutes" in self.flags:
            return resolved
        pauses = measure_pauses(resolved, self._trainer(resolved))
        minutes = round(training_seconds(pauses, self._seconds_left(resolved)) / 60, 3)
        train = resolved.config.train
        return self._with_config(resolved, replace(resolved.config, train=replace(train, max_minutes=minutes)))

    def _fitted(self, resolved: ResolvedConfig) -> ResolvedConfig:
        """Choose the image size and the networks, if no file does, and the steps, for the time that is left."""
        rung, best, step, reason = None, resolved, 0.0, ""
        starts_anew = resolved.config.train.init_from is None  # else the networks are that run's
        if starts_anew and self.choice and self.choice.survey:
            rung, best, step, reason = self._climb(resolved, ladder(self.choice.survey, self.flags))
        else:
            step = measure_step(resolved, self._trainer(resolved))
        pauses = measure_pauses(best, self._trainer(best))
        seconds = self._seconds_left(best)
        config = fit(best.config, step, pauses, seconds, self.flags)
        steps = min(config.train.steps, affordable_steps(step, pauses, seconds))
        self._announce(best, rung, f"{step:.2g} s/step leave {steps:,} steps{reason}")
        if steps < config.train.steps and "train.steps" in self.flags:
            log.warning("of %d steps only about %d fit into the time", config.train.steps, steps)
        return self._with_config(best, config)

    def _climb(
        self, resolved: ResolvedConfig, rungs: list[tuple[Rung, Config]]
    ) -> tuple[Rung, ResolvedConfig, float, str]:
        """Measure the rungs from the fastest on, until one has too few steps; return the last that has enough.

        Returns:
            The rung, its configuration, the seconds per step, and why it is no higher one, to end a sentence.
        """
        found: tuple[Rung, ResolvedConfig, float] | None = None
        for rung, config in rungs:
            size, seconds = config.data.crop_size, self._seconds_left(resolved)
            if found and affordable_steps(found[2], _NO_PAUSES, seconds) < rung.enough_steps:  # and it is slower
                return *found, f" (for {size} px it takes {rung.enough_steps:,})"
            candidate = self._with_config(resolved, config)
            try:
                at_most = max(_MIN_MEASURING_SECONDS, _MEASURING_SHARE * seconds)
                step = measure_step(candidate, self._trainer(candidate), at_most)
            except (RuntimeError, MemoryError) as error:
                if not found or not out_of_memory(error) or resolved.ranks.world_size > 1:
                    raise
                return *found, f" (for {size} px the memory is too small)"
            steps = affordable_steps(step, _NO_PAUSES, self._seconds_left(resolved))
            if "train.steps" in self.flags:
                steps = min(steps, config.train.steps)
            if found and steps < rung.enough_steps:
                networks = f"{size} px and {config.model.channels} channels"
                return *found, f" (at {networks} only {steps:,}, and it takes {rung.enough_steps:,})"
            found = rung, candidate, step
        if not found:
            raise ConfigError("no preset goes with these flags; give --config FILE.yaml")
        return *found, ""

    def _announce(self, resolved: ResolvedConfig, rung: Rung | None, reason: str) -> None:
        model, data = resolved.config.model, resolved.config.data
        what = f"{data.crop_size} px and {model.channels} channels"
        if rung and self.choice:
            what = f"two folders ({self.choice.survey}): the preset {rung.preset} at {what}"
        log.info("%s min on %s, %s, since %s", f"{self.minutes:.15g}", describe(resolved.device), what, reason)
        log.info("%s", _OVERRIDE)

    def _seconds_left(self, resolved: ResolvedConfig) -> float:
        """Return the seconds until the end, by the main rank's clock."""
        return resolved.ranks.broadcast(self.end - time.monotonic())

    def _with_config(self, resolved: ResolvedConfig, config: Config) -> ResolvedConfig:
        """Return the same with other settings, except for the folders, which are resolved already."""
        folders: dict[str, Any] = {key: getattr(resolved.config.data, key) for key in FOLDER_KEYS}
        return replace(resolved, config=replace(config, data=replace(config.data, **folders)))

    def _trainer(self, resolved: ResolvedConfig) -> Trainer:
        """Return a trainer to measure with: compiled only if a flag says so, as the run will be."""
        if resolved.config.train.compile == "on":
            return resolved.build_trainer()
        return Trainer(resolved.config, resolved.device, resolved.precision, resolved.ranks)


def _recorded(folder: Path) -> tuple[int, dict[str, Any]] | None:
    """Return the newest step and the settings of the run in a folder; None without a checkpoint to go on from."""
    steps: list[int] = []
    with suppress(OSError):  # a name that no file can have is refused later
        steps = [step for step, _ in checkpoint.available(folder / "checkpoints")]
    if not steps:
        return None
    try:
        return steps[0], read_config(folder / "config.yaml").to_flat_dict()
    except UserError as error:
        log.warning("%s; its settings are taken from the command line", error)
        return None
