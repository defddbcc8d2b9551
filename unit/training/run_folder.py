"""A run's folder: what lies where, and how a run that was stopped is found again."""

from __future__ import annotations

import json
import logging
import platform
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torchvision

from unit.config import Config, differences
from unit.config_file import write_config
from unit.data.bad_images import BadImages
from unit.data.datasets import Datasets
from unit.devices import describe, out_of_memory
from unit.domains import Domain
from unit.errors import ConfigError, ModelError, UserError, escape
from unit.evaluation.run_log import logged
from unit.files import atomic_write, wrap_os_errors
from unit.training import checkpoint
from unit.training.background import Background
from unit.training.trainer import Trainer
from unit.translation.translator import MODEL_FILE, Translator

log = logging.getLogger(__name__)

BEST_FILE = "best.safetensors"
FORMAT_VERSION = 2
"""Of what a checkpoint holds."""

_ANEW = "to start anew add --restart, which keeps what is there as {0}.1, or give another --out"


class RunFolder:
    """The folder of one run."""

    def __init__(self, path: Path, ranks: int = 1) -> None:
        self.path, self.ranks = path, ranks
        self.checkpoints = path / "checkpoints"
        self.writer = Background("checkpoint")

    def begin(self, config: Config, datasets: Datasets, device: torch.device, precision: str) -> dict[str, Any]:
        """Make the folder, write config.yaml and environment.json; returns the environment.

        Raises:
            UserError: it can't be written.
        """
        environment = {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "system": platform.platform(),
            "device": describe(device),
            "precision": precision,
            "threads": torch.get_num_threads(),
            "ranks": self.ranks,
            "git_revision": _git_revision(),
            "training_images": {datasets.names[i]: len(datasets.train[i]) for i in Domain},
            "test_images": {datasets.names[i]: len(datasets.test.images[i]) for i in Domain},
        }
        with wrap_os_errors(self.checkpoints):
            for half_written in self.checkpoints.glob(".*.partial"):
                half_written.unlink()
        write_config(config, self.path / "config.yaml")
        atomic_write(self.path / "environment.json", json.dumps(environment, indent=2).encode())
        return environment

    def save(self, trainer: Trainer, translator: Translator, facts: dict[str, Any], bad: BadImages) -> None:
        """The model, then a checkpoint of the trainer, whose being there says that all before it is there too.

        Both are copied now and written in the background; `writing` has what becomes of it.
        """
        model, train = translator.to_bytes(), trainer.config.train
        path = checkpoint.path_of(self.checkpoints, trainer.steps_done)
        state = {
            "format_version": FORMAT_VERSION,
            "config": trainer.config.to_dict(),
            "global_batch": trainer.config.global_batch(self.ranks),
            "facts": facts,
            "trainer": checkpoint.copied(trainer.state_dict()),
            "bad_images": bad.state_dict(),
        }

        def write() -> None:
            atomic_write(self.path / MODEL_FILE, model)
            checkpoint.save(state, path)
            checkpoint.remove_old(self.checkpoints, train.keep_last, train.keep_every)

        self.writer.start(write)

    def save_model(self, translator: Translator) -> None:
        """The file that is enough to translate; in the background, as `save`."""
        model = translator.to_bytes()
        self.writer.start(lambda: atomic_write(self.path / MODEL_FILE, model))

    def save_best(self, translator: Translator) -> None:
        """The best model so far; in the background, as `save`."""
        model = translator.to_bytes()
        self.writer.start(lambda: atomic_write(self.path / BEST_FILE, model))

    def resume(self, trainer: Trainer, facts: dict[str, Any], bad: BadImages) -> bool:
        """Put the newest good checkpoint into trainer and `bad`, if there is one; whether there was.

        Damaged ones before it are set aside, so that they count no more.

        Raises:
            ConfigError: the run was started with another configuration.
            UserError: the run has no good checkpoint any more, or one of another version.
        """
        candidates = checkpoint.available(self.checkpoints)
        damaged: list[Path] = []
        for step, path in candidates:
            try:
                self._restore(checkpoint.load(path), path, trainer, facts, bad)
            except checkpoint.BadCheckpointError as error:
                if error.__cause__ and out_of_memory(error.__cause__):
                    raise error.__cause__ from None  # which is not the checkpoint's fault
                log.warning("%s; going on from the one before", error)
                damaged.append(path)
                continue
            with wrap_os_errors(self.checkpoints):
                for each in damaged:
                    each.replace(each.with_suffix(".damaged"))
            reached = max(self._reached(), *(step for step, _ in candidates))
            lost = f"; steps up to {reached}, done before, are done again" if reached > step else ""
            log.info("going on from step %d%s", step, lost)
            return True
        self._require_nothing_lost(candidates)
        return False

    def _restore(
        self, state: dict[str, Any], path: Path, trainer: Trainer, facts: dict[str, Any], bad: BadImages
    ) -> None:
        try:
            version, before = state["format_version"], Config.from_dict(state["config"])
            global_batch = int(state.get("global_batch", before.global_batch(1)))  # not in those of one process alone
            parts, old_facts = (state["trainer"], state["bad_images"]), state["facts"].items()
        except Exception as error:  # whatever a file that isn't ours lacks
            raise checkpoint.BadCheckpointError(f"{escape(path)}: not a checkpoint of this program") from error
        if version != FORMAT_VERSION:
            raise UserError(f"{escape(path)}: of another version of this program; {_ANEW.format(escape(self.path))}")
        self._require_same(before, trainer.config, global_batch)
        try:
            trainer.load_state_dict(parts[0])
            bad.load_state_dict(parts[1])
            assert path == checkpoint.path_of(self.checkpoints, trainer.steps_done)
        except Exception as error:
            raise checkpoint.BadCheckpointError(f"{escape(path)}: holds something else than it says") from error
        for fact, old in old_facts:
            if facts.get(fact) != old:
                log.warning("the %s changed: %s before, %s now", fact, old, facts.get(fact))

    def _require_nothing_lost(self, candidates: list[tuple[int, Path]]) -> None:
        """The first checkpoint is written before the first step, so a step done without one means that it is lost."""
        reached = max(self._reached(), *(step for step, _ in candidates), 0)
        if candidates or reached:
            state = f"none of the {len(candidates)} checkpoints can be read" if candidates else "no checkpoint is left"
            raise UserError(
                f"{escape(self.checkpoints)}: {state}, so the training up to step {reached} is lost; "
                f"{_ANEW.format(escape(self.path))}"
            )

    def _reached(self) -> int:
        """The last step that the log or the model tells of, whatever became of the checkpoints."""
        steps = [step for step, _ in logged(self.path / "metrics.jsonl")]
        with suppress(ModelError):
            steps.append(Translator.load(self.path, "cpu").step)
        return max(steps, default=0)

    def _require_same(self, before: Config, now: Config, batch_before: int) -> None:
        changed, batch = differences(before, now), now.global_batch(self.ranks)
        if batch != batch_before:
            changed.append(f"train.batch_size × train.grad_accum_steps × ranks: {batch_before} before, {batch} now")
        if changed:
            raise ConfigError(
                f"{escape(self.path)}: this run was started with another configuration ({'; '.join(changed)}); "
                "take the change back, or give another --out"
            )


def _git_revision() -> str | None:
    try:
        command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
