"""A run's folder: what lies where, and how a run that was stopped is found again."""

from __future__ import annotations

import json
import logging
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torchvision

from unit.config import Config, differences
from unit.config_file import write_config
from unit.data.datasets import Datasets
from unit.devices import describe
from unit.domains import Domain
from unit.errors import ConfigError, UserError
from unit.files import write_whole, writing
from unit.training import checkpoint
from unit.training.trainer import Trainer
from unit.translation.translator import MODEL_FILE, Translator

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
"""Of what a checkpoint holds."""


class RunFolder:
    """The folder of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"

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
            "git_revision": _git_revision(),
            "training_images": {datasets.names[i]: len(datasets.train[i]) for i in Domain},
            "test_images": {datasets.names[i]: len(datasets.test.images[i]) for i in Domain},
        }
        with writing(self.path):
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            write_config(config, self.path / "config.yaml")
            write_whole(self.path / "environment.json", json.dumps(environment, indent=2).encode())
        return environment

    def save(self, trainer: Trainer, translator: Translator, facts: dict[str, Any]) -> None:
        """The model, then a checkpoint of the trainer, whose being there says that all before it is there too."""
        self.save_model(translator)
        state = {
            "format_version": FORMAT_VERSION,
            "config": trainer.config.to_dict(),
            "facts": facts,
            "trainer": trainer.state_dict(),
        }
        path = checkpoint.path_of(self.checkpoints, trainer.steps_done)
        with writing(path):
            checkpoint.save(state, path)
        checkpoint.remove_old(self.checkpoints, trainer.config.train.keep_last)

    def save_model(self, translator: Translator) -> None:
        """The file that is enough to translate."""
        with writing(self.path / MODEL_FILE):
            translator.save(self.path / MODEL_FILE)

    def resume(self, trainer: Trainer, facts: dict[str, Any]) -> bool:
        """Put the newest good checkpoint into the trainer, if there is one; whether there was.

        Damaged ones before it are set aside, so that they count no more.

        Raises:
            ConfigError: the run was started with another configuration.
            UserError: there are checkpoints, but none is good, or they are another version's.
        """
        candidates = checkpoint.available(self.checkpoints)
        damaged: list[Path] = []
        for step, path in candidates:
            try:
                state = checkpoint.load(path)
            except checkpoint.BadCheckpointError as error:
                log.warning("%s; going on from the one before", error)
                damaged.append(path)
                continue
            if state.get("format_version") != FORMAT_VERSION:
                raise UserError(f"{path}: of another version of this program; give another --out to start anew")
            self._require_same(Config.from_dict(state["config"]), trainer.config)
            for fact, before in state["facts"].items():
                if facts.get(fact) != before:
                    log.warning("the %s changed since step %d: %s before, %s now", fact, step, before, facts.get(fact))
            trainer.load_state_dict(state["trainer"])
            for bad in damaged:
                bad.replace(bad.with_suffix(".damaged"))
            return True
        if candidates:
            raise UserError(
                f"{self.checkpoints}: none of the {len(candidates)} checkpoints can be read, so the training up to "
                f"step {candidates[0][0]} is lost; delete {self.path} or give another --out to start anew"
            )
        return False

    def _require_same(self, before: Config, now: Config) -> None:
        changed = differences(before, now)
        if changed:
            raise ConfigError(
                f"{self.path}: this run was started with another configuration ({'; '.join(changed)}); "
                "take the change back, or give another --out"
            )


def _git_revision() -> str | None:
    try:
        command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
