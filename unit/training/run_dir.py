"""The directory of a run: its lock, the files that training writes there, and the checkpoint that it resumes from."""

from __future__ import annotations

import json
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from unit.config import FOLDER_KEYS, RemovedKeyError, RunConfig, differences, with_absolute_folders
from unit.config_file import write_config
from unit.data.bad_images import BadImages
from unit.data.datasets import image_changes
from unit.devices import describe, out_of_memory, versions
from unit.domains import Domain
from unit.errors import ConfigError, DataError, ModelError, UserError, escape
from unit.evaluation.run_images import EARLIER_PARTS, ENVIRONMENT_FILE, locate, moved_with, parts
from unit.evaluation.run_log import RUN_LOG_FILE, logged
from unit.files import atomic_write, read_file, wrap_os_errors
from unit.machine import available_memory
from unit.training import checkpoint
from unit.training.resolve import ResolvedRun
from unit.training.state import TrainingState
from unit.translation.translator import MODEL_FILE, Translator

log = logging.getLogger(__name__)

BEST_FILE = "best.safetensors"
FORMAT_VERSION = 2
"""Of the checkpoints' content."""
_MAX_PARTS = 100
"""Earlier parts of the run that environment.json keeps."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Create `folder` and hold its lock, which the system releases when the process ends, however it ends.

    Raises:
        UserError: another process holds it; the message has its pid.
    """
    lock, holder = FileLock(folder / ".lock", timeout=0), folder / ".lock-holder"
    with wrap_os_errors(folder):
        Path(os.path.realpath(folder)).mkdir(parents=True, exist_ok=True)  # it may be a link to a missing folder
        try:
            lock.acquire()
        except Timeout:
            pid = "unknown"
            with suppress(OSError):
                pid = read_file(holder, 100).decode(errors="replace")
            raise UserError(
                f"{escape(folder)}: process {escape(pid)} is training there; wait for it, stop it, or give "
                "another --out"
            ) from None
    try:
        atomic_write(holder, str(os.getpid()).encode())
        yield
    finally:
        lock.release()


def require_own_folder(folder: Path) -> None:
    """Raise `ConfigError` if training would replace files of a folder that is not a run directory."""
    written = ("config.yaml", ENVIRONMENT_FILE, "metrics.jsonl", MODEL_FILE, BEST_FILE, "report.html")
    foreign = next((name for name in written if os.path.lexists(folder / name)), None)
    if foreign and not _is_run(folder):
        raise ConfigError(
            f"--out {escape(folder)}: not a run directory, and its {foreign} would be replaced; give another"
        )


def _is_run(folder: Path) -> bool:
    """True if training has started there: it writes run.log first."""
    return any(os.path.lexists(folder / name) for name in (RUN_LOG_FILE, "checkpoints"))


def archive_run(folder: Path) -> Path | None:
    """Rename a run's directory to NAME.1, or NAME.2 and so on if that exists; return the new path, None without a run.

    Raises:
        UserError: a process is training there, it is not a run directory, or it can't be renamed.
    """
    folder = Path(os.path.realpath(folder))
    if not folder.is_dir():
        return None
    if not _is_run(folder) and not (folder / ".lock").exists():
        raise UserError(f"{escape(folder)}: not a run directory, so --restart does not rename it; give another --out")
    if Path.cwd().is_relative_to(folder):
        raise UserError(f"{escape(folder)}: the current directory is in it, so --restart can't rename it; cd elsewhere")
    with locked(folder), wrap_os_errors(folder):
        archive = next(path for n in range(1, 10**6) if not (path := folder.with_name(f"{folder.name}.{n}")).exists())
        return folder.rename(archive)


class BackgroundWriter:
    """Runs one task at a time in a thread; its exception is raised by the next method called."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._task: Future[None] | None = None

    def start(self, task: Callable[[], None]) -> None:
        """Start a task as soon as the one before is done."""
        self.finish()
        self._task = self._thread.submit(task)

    def finish(self) -> None:
        """Wait for the task, if there is one."""
        task, self._task = self._task, None
        if task:
            task.result()

    def check(self) -> None:
        """Raise the task's exception if it has failed; never wait."""
        if self._task and self._task.done():
            self.finish()


class RunDir:
    """Writes a run's config.yaml, environment.json, checkpoints and models, and finds the checkpoint to resume from.

    State is copied at once and written in the background, by `writer`. `UserError`: a file can't be written.
    """

    def __init__(self, resolved: ResolvedRun, trainer: TrainingState, bad_images: BadImages) -> None:
        self.resolved, self.trainer, self.bad_images = resolved, trainer, bad_images
        self.path = resolved.out
        self.checkpoints = self.path / "checkpoints"
        self.writer = BackgroundWriter()
        self._how_to_restart = (
            f"to start from step 0 add --restart, which keeps what is there as {escape(self.path)}.1, "
            "or give another --out"
        )
        self._global_batch = resolved.config.global_batch(resolved.ranks.world_size)
        device = resolved.device
        self._environment = {  # which may change within a run, but not unnoticed
            "precision": resolved.precision,
            "thread count": torch.get_num_threads(),
            "number of ranks": resolved.ranks.world_size,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            **versions(),
        }
        self.best_since = 0
        """the step after which validations count for the best model: the test images have been the same since"""

    @cached_property
    def images(self) -> dict[str, dict[str, str]]:
        """Digests of this part's images."""
        return self.resolved.digests()

    def write_environment(self) -> dict[str, Any]:
        """Write config.yaml and environment.json; return the environment."""
        datasets = self.resolved.datasets
        environment: dict[str, Any] = {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "run": os.path.abspath(self.path),  # noqa: PTH100 - the path that the user gave, links and all
            "step": self.trainer.steps_done,
            **versions(),
            "system": platform.platform(),
            "device": describe(self.resolved.device),
            "precision": self.resolved.precision,
            "threads": torch.get_num_threads(),
            "ranks": self.resolved.ranks.world_size,
            "git_revision": _git_revision(),
            "training_images": {datasets.names[i]: len(datasets.train[i]) for i in Domain},
            "test_images": {datasets.names[i]: len(datasets.test.images[i]) for i in Domain},
            "images": self.images,
        }
        kept = ("started", "run", "step", *versions(), "device", "precision", "threads", "ranks", "git_revision")
        earlier = [{key: part[key] for key in kept if key in part} for part in parts(self.path)[:_MAX_PARTS]]
        environment[EARLIER_PARTS] = earlier[::-1]
        with wrap_os_errors(self.checkpoints):
            for half_written in self.checkpoints.glob(".*.partial"):
                half_written.unlink()
        write_config(self.resolved.config, self.path / "config.yaml")
        atomic_write(self.path / ENVIRONMENT_FILE, json.dumps(environment, indent=2).encode())
        return environment

    def save(self) -> None:
        """Save the model, then a checkpoint, so that each checkpoint has its model, and drop old checkpoints."""
        config, model = self.resolved.config, self.resolved.model(self.trainer)
        step = self.trainer.steps_done
        path = checkpoint.path_of(self.checkpoints, step)
        state = {
            "format_version": FORMAT_VERSION,
            "config": config.to_dict(),
            "global_batch": self._global_batch,
            "facts": self._environment,
            "images": self.images,
            "best_since": self.best_since,
            "trainer": checkpoint.copy_to_cpu(self.trainer.state_dict()),
            "bad_images": self.bad_images.state_dict(),
        }

        def write() -> None:
            atomic_write(self.path / MODEL_FILE, model)
            checkpoint.save(state, path)
            checkpoint.remove_old(self.checkpoints, step, config.train.keep_last, config.train.keep_every)

        self.writer.start(write)

    def save_model(self, name: str = MODEL_FILE) -> None:
        """Save the EMA weights alone, all that translating needs."""
        model = self.resolved.model(self.trainer)
        self.writer.start(lambda: atomic_write(self.path / name, model))

    def resume(self) -> bool:
        """Load the newest good checkpoint into the trainer; return False if the run has none yet.

        Newer checkpoints that are damaged are renamed to .damaged, so that they no longer count.

        Raises:
            ConfigError: the run was started with another configuration.
            UserError: none of the run's checkpoints is good any more or fits into the memory, or the newest is of
                another version.
        """
        candidates = checkpoint.available(self.checkpoints)
        last_step = max([0, self._last_logged_step(), *(step for step, _ in candidates)])
        damaged: list[Path] = []
        too_large: UserError | None = None
        for step, path in candidates:
            try:
                self._restore(path)
            except checkpoint.BadCheckpointError as error:
                reason: UserError = error
                if error.__cause__ and out_of_memory(error.__cause__):  # it may be good, and is left as it is
                    reason = _out_of_memory(path)
                    too_large = too_large or reason
                else:
                    damaged.append(path)
                log.warning("%s; trying the one before", reason)
                continue
            with wrap_os_errors(self.checkpoints):
                for bad in damaged:
                    bad.replace(bad.with_suffix(".damaged"))
            lost = f"; steps up to {last_step}, done before, are recomputed" if last_step > step else ""
            log.info("resuming from step %d%s", step, lost)
            return True
        if too_large:
            raise too_large
        if candidates or last_step:  # the first checkpoint is written before the first step
            state = f"none of the {len(candidates)} checkpoints can be read" if candidates else "no checkpoint is left"
            raise UserError(
                f"{escape(self.checkpoints)}: {state}, so the training up to step {last_step} is lost; "
                f"{self._how_to_restart}"
            )
        return False

    def _last_logged_step(self) -> int:
        """The last step in metrics.jsonl or of the model, even if its checkpoint is gone."""
        steps = [step for step, _ in logged(self.path / "metrics.jsonl")]
        with suppress(ModelError):
            steps.append(Translator.load(self.path, "cpu").step)
        return max(steps, default=0)

    def _restore(self, path: Path) -> None:
        with suppress(OSError):
            if path.stat().st_size > available_memory():  # a sparse file of terabytes would be read for hours
                raise checkpoint.BadCheckpointError(f"{escape(path)}: too large") from MemoryError()
        state = checkpoint.load(path)
        try:
            version, config = state["format_version"], type(self.resolved.config).from_dict(state["config"])
            global_batch = int(state.get("global_batch", config.global_batch(1)))  # older ones are of one process
            trainer_state, bad_state, environment = state["trainer"], state["bad_images"], dict(state["facts"])
            images, best_since = dict(state.get("images", {})), int(state.get("best_since", 0))  # older ones lack them
        except RemovedKeyError as error:
            raise ConfigError(f"{escape(path)}: {error}, so the run can't be resumed; give another --out") from error
        except Exception as error:  # a foreign file may lack anything
            raise checkpoint.BadCheckpointError(f"{escape(path)}: not a checkpoint of this program") from error
        if version != FORMAT_VERSION:
            raise UserError(f"{escape(path)}: was written by another version of this program; {self._how_to_restart}")
        self._require_same(config, global_batch, images)
        try:
            self.trainer.load_state_dict(trainer_state)
            self.bad_images.load_state_dict(bad_state)
            if path != checkpoint.path_of(self.checkpoints, self.trainer.steps_done):
                raise ValueError("the file's name says another step")
        except Exception as error:
            raise checkpoint.BadCheckpointError(f"{escape(path)}: the state does not fit its name or config") from error
        self.best_since = best_since
        self._warn_of_changes(environment, images)

    def _warn_of_changes(self, environment: dict[str, Any], images: dict[str, Any]) -> None:
        """Say in one line what changed since the checkpoint, and what that costs.

        All of this is a notice, not a refusal, since folders grow, photos are copied and programs are updated within
        the life of a run. Refused are other folders, and contents that data.verify finds changed: `_require_same`.
        """
        changes = [
            f"{name} was {escape(str(before)[:100])}, is {self._environment[name]}"
            for name, before in environment.items()
            if name in self._environment and str(self._environment[name]) != str(before)
        ]
        if not images and environment.get("list of training images") not in (None, self.resolved.datasets.digest()):
            changes.append("names of the training images changed")
        listed = image_changes(images, self.images, ("names", "sizes"))
        exact = bool(changes) or any("training" in change for change in listed)
        costs = ["the result is no longer bit for bit that of an uninterrupted run"] if exact else []
        if any("test" in change for change in listed):
            self.best_since = self.trainer.steps_done
            costs.append("metrics before and after do not compare, and the best model is chosen only among later ones")
        if not listed and image_changes(images, self.images, ("times",)):
            listed = ["times of the images changed, not their names and sizes"]
            costs.append("if they are not copies, results change too (data.verify compares contents)")
        if costs:
            log.warning("since the last part: %s; %s", "; ".join(changes + listed), ", and ".join(costs))

    def _require_same(self, before: RunConfig, batch_before: int, images: dict[str, Any]) -> None:
        """Refuse another configuration, other folders, and images whose contents are known to have changed.

        The same folders are those of the same real path; those at the same place relative to the run's directory, if
        the former ones are gone and names and sizes are the same; and those with the same contents (data.verify).
        """
        now, located = self.resolved.config, locate(before.data, self.path)
        digests = [*images.values(), *self.images.values()]
        if images and all(isinstance(known, dict) and "contents" in known for known in digests):
            if changes := image_changes(images, self.images, ("contents",)):
                raise DataError(
                    f"{escape(self.path)}: {'; '.join(changes)} since the last part of this run; restore them, resume "
                    "without data.verify, or give another --out"
                )
            folders: dict[str, Any] = {key: getattr(now.data, key) for key in FOLDER_KEYS if hasattr(now.data, key)}
            located = replace(located, **folders)
        elif located != with_absolute_folders(before.data):
            changes = image_changes(images, self.images, ("names", "sizes"))
            if changes or not images:
                raise DataError(
                    f"{escape(self.path)}: was moved, and it is not known that its images are the same ones "
                    f"({'; '.join(changes) or 'it is of an earlier version'}); move them back, or give another --out"
                )
            log.info("%s: was moved together with its images", self.path)
        source = before.train.init_from and moved_with(self.path)(before.train.init_from)
        before = replace(before, data=located, train=replace(before.train, init_from=source))
        changed, batch = differences(before, now), self._global_batch
        if batch != batch_before:
            changed.append(f"train.batch_size × train.grad_accum_steps × ranks: {batch_before} before, {batch} now")
        if changed:
            raise ConfigError(
                f"{escape(self.path)}: this run was started with another configuration ({'; '.join(changed)}); "
                "undo the change, or give another --out"
            )


def _out_of_memory(path: Path) -> UserError:
    sizes = f"it has {path.stat().st_size / 1e9:.2f} GB, and {available_memory() / 1e9:.2f} GB"
    return UserError(f"{escape(path)}: out of memory ({sizes} of memory are free); end other programs")


def _git_revision() -> str | None:
    try:
        command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
