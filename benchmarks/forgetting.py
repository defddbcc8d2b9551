"""Fine-tune a translator of streets by day on streets at night, and measure what it forgets of the day.

    python benchmarks/forgetting.py --out runs/forgetting --dry_run
    python benchmarks/forgetting.py --out runs/forgetting

The old task is sun and rain by day, the new one the same two weathers at night, of which there are few images. From the
old task's model ("before") start, with each seed: plain fine-tuning; Memory Aware Synapses and L2-to-start, each at
several strengths; and joint training on both, which no longer needs to remember. A strength is λ times the mean
importance, so that equal strengths of both pull as much on average: L2-to-start is the same penalty with every weight's
importance set to the mean. Joint training takes twice the steps, half of its images being the old ones.

Each run is a process of train.py with one thread, as many in parallel as there are cores. Ctrl-C saves them, and the
same command goes on. Finished runs are in --results, and are not trained again. Scenes to choose a strength by
("select") and to report on ("report") are of other towns than those of training.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.ablation import seconds_a_step
from benchmarks.ablation_study import REPORT_TOWN, REPOSITORY
from benchmarks.forgetting_results import SCENES, TASKS, Results, plot, tables
from unit.config import Config
from unit.config_file import read_config
from unit.data.datasets import HeldOut
from unit.domains import PerDomain
from unit.errors import UserError
from unit.evaluation.evaluate import Evaluator
from unit.evaluation.features import features_if_installed
from unit.streets import DAY, NIGHT, Streets, write_streets
from unit.training.importance import IMPORTANCE_FILE, read_importance, write_importance
from unit.training.progress import format_duration
from unit.translation.model_file import load_model
from unit.translation.translator import Translator

log = logging.getLogger(__name__)

WEATHERS = dict(zip(TASKS, (DAY, NIGHT), strict=True))
SELECT_TOWN = 1008
"""The seed of the streets to choose a strength by."""
OWN_TEST = 10
"""Test pairs of the runs themselves, whose metrics are not used."""
EVALUATION_SECONDS = 60
"""About what evaluating one run takes, on one core."""


@dataclass(frozen=True)
class Run:
    """One training: "before", "plain", "joint", or "memory" or "l2" with a strength; from "before" of the same seed."""

    setting: str
    seed: int
    old_steps: int
    """of "before\""""
    steps: int
    strength: float = 0.0

    @property
    def name(self) -> str:
        """The setting, with its strength."""
        return f"{self.setting}-{self.strength:g}" if self.strength else self.setting

    def __str__(self) -> str:
        return f"{self.name}, seed {self.seed}"


class Bench:
    """All runs, in one folder.

    Args:
        arguments: of the command line.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.out, self.size, self.jobs = arguments.out.resolve(), arguments.size, arguments.jobs
        self.old_count, self.new_count, self.test_count = arguments.old_images, arguments.new_images, arguments.test
        self.importance_images, self.device = arguments.importance_images, arguments.device
        self.results = Results(arguments.results)
        self._lock = threading.Lock()
        self._evaluators: dict[tuple[str, str], Evaluator] = {}
        old_steps, steps = arguments.old_steps, arguments.steps
        self.before = [Run("before", seed, old_steps, old_steps) for seed in range(arguments.seeds)]
        self.after = [
            run
            for seed in range(arguments.seeds)
            for run in (
                Run("plain", seed, old_steps, steps),
                *(Run(setting, seed, old_steps, steps, s) for s in arguments.strengths for setting in ("memory", "l2")),
                Run("joint", seed, old_steps, 2 * steps),
            )
        ]

    def waiting(self, runs: Sequence[Run]) -> list[Run]:
        """Return the runs that are not in the results."""
        return [run for run in runs if self.results.of(run.name, run.seed, run.old_steps, run.steps) is None]

    def plan(self) -> str:
        """Time a step, and describe the cost of what is not done yet."""
        runs = self.waiting([*self.before, *self.after])
        seconds = seconds_a_step({"step": self._config()}, threads=1)["step"]
        total = sum(run.steps * seconds + EVALUATION_SECONDS for run in runs) / self.jobs
        steps, done = sum(run.steps for run in runs), len(self.before) + len(self.after) - len(runs)
        return (
            f"{len(runs)} runs, {steps:,} steps in all ({done} more runs are done): {seconds:.3g} s/step, "
            f"{self.jobs} in parallel: {format_duration(total / 60)}"
        )

    def _config(self) -> Config:
        flags = {"data.load_size": self.size, "data.crop_size": self.size, "train.device": self.device}
        return read_config(REPOSITORY / "configs" / "streets.yaml", flags)

    # -- training ------------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Train what is not done: first the old task, then all that starts from it."""
        torch.set_num_threads(1)
        self._write_images()
        for stage in (self.before, self.after):
            with ThreadPoolExecutor(self.jobs) as pool:
                try:
                    list(pool.map(self._train, self.waiting(stage)))
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise

    def _write_images(self) -> None:
        """Write the images of both tasks, and of both together: the new ones so often that they are half of it."""
        for task, count in zip(TASKS, (self.old_count, self.new_count), strict=True):
            folder = self._images(task)
            if not folder.exists():
                write_streets(folder, self.size, count, OWN_TEST, 0, WEATHERS[task])
        joint = self._images("joint")
        if joint.exists():
            return
        partial = joint.with_name("joint.partial")
        shutil.rmtree(partial, ignore_errors=True)
        for part in ("trainA", "trainB"):
            shutil.copytree(self._images("day") / part, partial / part / "day")
            for copy in range(max(1, self.old_count // self.new_count)):
                shutil.copytree(self._images("night") / part, partial / part / f"night{copy}")
        partial.rename(joint)

    def _images(self, task: str) -> Path:
        return self.out / "images" / task

    def _folder(self, run: Run) -> Path:
        return self.out / f"seed{run.seed}-{run.old_steps}" / run.name

    def _before(self, run: Run) -> Path:
        """Return the run of the old task with the same seed."""
        return self._folder(Run("before", run.seed, run.old_steps, run.old_steps))

    def _train(self, run: Run) -> None:
        folder = self._folder(run)
        log.info("%s: %d steps", run, run.steps)
        self._call("train", *self._arguments(run), "--out", folder, log_file=folder.with_name(f"{folder.name}.log"))
        if run.setting == "before":
            count = ("--images", self.importance_images, "--device", self.device)
            self._call("importance", folder, *count, log_file=folder.with_name("importance.log"))
        metrics = {scenes: {task: self._metrics(folder, task, scenes) for task in TASKS} for scenes in SCENES}
        environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
        facts = {name: environment[name] for name in ("device", "precision", "torch", "python", "git_revision")}
        with self._lock:
            line = asdict(run) | {"name": run.name, "size": self.size, "images": [self.old_count, self.new_count]}
            self.results.add(line | {"metrics": metrics} | facts)
        log.info("%s: done", run)

    def _arguments(self, run: Run) -> Iterator[object]:
        """Yield the arguments of train.py."""
        task = {"before": "day", "joint": "joint"}.get(run.setting, "night")
        interval = max(1, run.steps // 5)
        keys: dict[str, object] = {"data.root": self._images(task), "data.name_a": "dry", "data.name_b": "wet"}
        if run.setting == "joint":
            keys |= {f"data.test_{i}": self._images("day") / f"test{i.upper()}" for i in "ab"}
        keys |= {"data.load_size": self.size, "data.crop_size": self.size, "train.seed": run.seed}
        keys |= {"train.steps": run.steps, "train.max_minutes": "null", "train.device": self.device}
        keys |= {"train.sample_every": interval, "train.checkpoint_every": interval, "train.keep_last": 1}
        keys |= {"train.validate_every": 10**9}
        if run.setting != "before":
            keys |= {"train.init_from": self._start(run)}
        if run.strength:
            keys |= {"loss.memory": f"{run.strength / self._mean_importance(run):.6g}"}
        yield from ("--config", REPOSITORY / "configs" / "streets.yaml")
        yield from (f"--{key}={value}" for key, value in keys.items())

    def _start(self, run: Run) -> Path:
        """Return the run to start from: of L2-to-start a copy of it, in which all weights are equally important."""
        before = self._before(run)
        if run.setting != "l2":
            return before
        with self._lock:
            copy = before.with_name("before-equal")
            if not (copy / IMPORTANCE_FILE).exists():
                shutil.copytree(before, copy, dirs_exist_ok=True, ignore=lambda *_: [IMPORTANCE_FILE, ".lock"])
                networks, _, _, step = load_model(copy)
                mean = self._mean_importance(run)
                equal = {name: torch.full_like(weight, mean) for name, weight in networks.named_parameters()}
                write_importance(copy / IMPORTANCE_FILE, equal, networks, step, PerDomain(0, 0))
            return copy

    def _mean_importance(self, run: Run) -> float:
        before = self._before(run)
        importance = read_importance(before / IMPORTANCE_FILE, load_model(before)[0])
        return float(torch.cat([values.flatten() for values in importance.values()]).mean())

    def _call(self, verb: str, *words: object, log_file: Path) -> None:
        """Call a verb, and raise `UserError` with its last words if it fails."""
        log_file.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "unit", verb, *map(str, words)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
        with log_file.open("wb") as file:
            done = subprocess.run(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, check=False
            )
        if done.returncode:
            lines = log_file.read_text(encoding="utf-8", errors="replace").splitlines() or ["it wrote nothing"]
            raise UserError(f"{log_file}: {lines[-1].removeprefix('error: ')} (exit status {done.returncode})")

    def _metrics(self, folder: Path, task: str, scenes: str) -> dict[str, dict[str, float | None]]:
        """Return the metrics of a run's model on one task's scenes, direction by direction."""
        translator = Translator.load(folder, self.device)
        with self._lock:  # the first to come computes what all need
            key = (task, scenes)
            if key not in self._evaluators:
                features = features_if_installed(translator.device)
                self._evaluators[key] = Evaluator(self._held_out(task, scenes), translator.config.data, features)
            metrics = self._evaluators[key].metrics(translator)
        return {
            way: {name: None if value is None else round(value, 5) for name, value in groups["translated"].items()}
            for way, groups in metrics.items()
        }

    def _held_out(self, task: str, scenes: str) -> HeldOut:
        """Return aligned pairs of a town where no run trains."""
        town = {"select": SELECT_TOWN, "report": REPORT_TOWN}[scenes]
        weathers = PerDomain(*WEATHERS[task])
        return HeldOut(weathers.map(lambda w: Streets(w, "test", self.test_count, self.size, town)), paired=True)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        bench = Bench(arguments)
        if arguments.dry_run:
            print(bench.plan())
            return 0
        if not arguments.table:
            bench.train()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    print(tables(bench.results))
    if arguments.plot:
        arguments.plot.write_text(plot(bench.results), encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    results = Path(__file__).parent / "results" / "forgetting.jsonl"
    parser.add_argument("--out", type=Path, default=Path("runs/forgetting"), help="folder (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=results, help="file of results (default: %(default)s)")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the old task's metrics against the new's")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds 0 to N - 1 (default: %(default)s)")
    parser.add_argument("--old_steps", type=int, default=4000, help="steps of the old task (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=1500, help="steps of fine-tuning (default: %(default)s)")
    strengths_help = "of memory and of L2: λ times the mean importance (default: %(default)s)"
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.03, 0.3, 3.0], help=strengths_help)
    parser.add_argument("--size", type=int, default=64, help="side of the images in pixels (default: %(default)s)")
    parser.add_argument("--old_images", type=int, default=1000, help="by day, per weather (default: %(default)s)")
    parser.add_argument("--new_images", type=int, default=200, help="at night, per weather (default: %(default)s)")
    parser.add_argument("--importance_images", type=int, default=200, help="to measure on (default: %(default)s)")
    parser.add_argument("--test", type=int, default=100, help="test pairs (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="parallel runs (default: one per core)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--dry_run", action="store_true", help="time a step, print the cost, and stop")
    parser.add_argument("--table", action="store_true", help="print the tables of the results so far, and stop")
    return parser


if __name__ == "__main__":
    sys.exit(main())
