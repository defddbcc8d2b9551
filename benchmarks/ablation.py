"""Train a matrix of settings × data sets × seeds for an equal time each, and write a Markdown table of the metrics.

    python benchmarks/ablation.py benchmarks/studies/ingredients.yaml --out runs/ablation --dry_run
    python benchmarks/ablation.py benchmarks/studies/ingredients.yaml --out runs/ablation > table.md

The study file says what to compare. Each run is a process of train.py: on a CPU as many in parallel as it has cores,
with one thread each (two busy processes of two threads on two cores take ten times as long), on a GPU one at a time.
Ctrl-C saves all of them, and the same command resumes them, also on another machine, with a copy of OUT. Finished runs
are in OUT/STUDY.jsonl, or --results, and are not trained again, even when their directories are gone; failed runs are
listed below the table, and tried again.

Equal time is equal minutes of the whole machine, converted to steps: with N parallel runs, a step costs the machine 1/N
of its duration. Durations are measured first, once per results file, all settings in turn in the same N processes.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import machine
from benchmarks.ablation_results import Results, speed_keys, tables
from benchmarks.ablation_study import REPOSITORY, SCENES, Run, Study, changed_keys, held_out, make_images, read_study
from unit.config import Config
from unit.devices import configure, resolve_device, resolve_precision
from unit.domains import PerDomain
from unit.errors import UserError
from unit.evaluation.evaluate import Evaluator
from unit.evaluation.features import features_if_installed
from unit.evaluation.metric_table import Metrics
from unit.evaluation.run_log import logged
from unit.evaluation.st_lpips import st_lpips_if_installed
from unit.model.extras.r1 import INTERVAL
from unit.training.progress import format_duration
from unit.training.signals import stop_on_signals
from unit.training.trainer import Trainer
from unit.translation.translator import Translator

log = logging.getLogger(__name__)

ROUNDS = 20
"""Measurements of each kind of step, after one for warm-up."""
DIGITS = 5


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        return _run(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status


def _run(arguments: argparse.Namespace) -> int:
    study = _study(arguments)
    results = Results(arguments.results or arguments.out / f"{study.name}.jsonl")
    device = resolve_device(arguments.device)
    bench = Bench(study, arguments.out.resolve(), results, device, arguments.jobs or default_jobs(device))
    if arguments.dry_run:
        print(bench.plan())
        return 0
    if arguments.table:
        bench.require_same()
        print(tables(study, bench.runs(), results))
        return 0
    if arguments.calibrate or study.minutes is not None:
        bench.measure_speed(again=arguments.calibrate)
    if arguments.calibrate:
        print(bench.plan())
        return 0
    bench.require_same()
    status = bench.train()
    print(tables(study, bench.runs(), results))
    return status


def _study(arguments: argparse.Namespace) -> Study:
    study = read_study(arguments.study)
    if arguments.minutes is not None:
        study = replace(study, minutes=arguments.minutes, steps=None)
    if arguments.seeds is not None:
        study = replace(study, seeds=tuple(range(arguments.seeds)))
    if arguments.size is not None:
        study = replace(study, size=arguments.size)
    return study.only(arguments.only) if arguments.only else study


def default_jobs(device: torch.device) -> int:
    """Choose the number of parallel runs: one per GPU, or one per CPU core."""
    return (os.cpu_count() or 1) if device.type == "cpu" else 1


def steps_for(minutes: float, seconds: float) -> int:
    """Return the number of steps in `minutes`, at `seconds` per step."""
    return max(1, round(60 * minutes / seconds))


class Bench:
    """A study on this machine.

    Args:
        study: what to compare.
        out: the folder of all runs and their working directory, so that they contain no path of this machine.
        results: earlier results, and where to add new ones.
        device: where to train.
        jobs: number of parallel runs.
    """

    def __init__(self, study: Study, out: Path, results: Results, device: torch.device, jobs: int) -> None:
        self.study, self.out, self.results, self.device, self.jobs = study, out, results, device, jobs
        self.threads = max(1, (os.cpu_count() or 1) // jobs)
        self._judge = Judge(out, device)
        for setting in study.settings:  # refuse invalid settings before hours are spent
            for run in self._runs(setting, 1000):
                study.config(run)

    # -- the plan ------------------------------------------------------------------------------------------------------

    def runs(self) -> list[Run]:
        """List all runs, seed by seed, so that early results cover all settings; their steps are 0 while unknown."""
        runs = [run for setting in self.study.settings for run in self._runs(setting, self._steps(setting))]
        return sorted(runs, key=lambda run: self.study.seeds.index(run.seed))

    def _runs(self, setting: str, steps: int) -> Iterator[Run]:
        study = self.study
        return (Run(setting, data, study.size, seed, steps) for data in study.data for seed in study.seeds)

    def _steps(self, setting: str) -> int:
        speed = self.results.speed(setting, self.study.size)
        if self.study.minutes is None:
            return self.study.steps or 0
        return steps_for(self.study.minutes, speed["seconds"]) if speed else 0

    def plan(self) -> str:
        """Describe settings, steps and cost, without measuring anything."""
        study, runs = self.study, self.runs()
        waiting = [run for run in runs if not self._is_done(run)]
        lines = [f"{study.name}: {len(runs)} runs, {len(runs) - len(waiting)} of them done; {self.jobs} in parallel"]
        for setting, keys in study.settings.items():
            speed, steps = self.results.speed(setting, study.size), self._steps(setting)
            pace = f"{steps:,} steps of {speed['seconds']:.3g} s" if speed else "not yet measured"
            changes = ", ".join(f"{key} {value}" for key, value in keys.items()) or "common keys only"
            lines.append(f"  {setting} ({pace}): {changes}")
        minutes = [self._minutes(run) for run in waiting]
        cost = "unknown until the steps are measured (--calibrate)"
        if None not in minutes:
            cost = format_duration(sum(value or 0 for value in minutes))
        return "\n".join([*lines, f"training: {cost} of this machine, and some seconds per run to evaluate it"])

    def require_same(self) -> None:
        """Raise `ConfigError` if the results were measured with other settings."""
        for run in self.runs():
            if run.steps:
                self.results.require_same(self.study, run)

    def _minutes(self, run: Run) -> float | None:
        if self.study.minutes is not None:
            return self.study.minutes
        speed = self.results.speed(run.setting, run.size)
        return run.steps * speed["seconds"] / 60 if speed else None

    def _is_done(self, run: Run) -> bool:
        return "metrics" in (self.results.of(run) or {})

    # -- the duration of a step ---------------------------------------------------------------------------------------

    def measure_speed(self, *, again: bool) -> None:
        """Measure the settings whose speed is unknown, or all of them again."""
        study, size = self.study, self.study.size
        unknown = [name for name in study.settings if again or not self.results.speed(name, size)]
        if not unknown:
            return
        log.info("measuring the steps of %d settings in %d processes", len(unknown), self.jobs)
        first = {name: next(self._runs(name, 1000)) for name in unknown}
        configs = {name: study.config(run, str(self.device)) for name, run in first.items()}
        with ProcessPoolExecutor(self.jobs, mp_context=get_context("spawn")) as pool:
            work = [pool.submit(seconds_a_step, configs, self.threads) for _ in range(self.jobs)]
            measured = [future.result() for future in work]
        precision = resolve_precision(next(iter(configs.values())).train.precision, self.device)
        common = machine.facts(self.device) | {"threads": self.threads, "jobs": self.jobs, "precision": precision}
        for name in unknown:
            seconds = statistics.median(seconds[name] for seconds in measured) / self.jobs
            config = speed_keys(changed_keys(configs[name]))
            line = {"kind": "speed", "setting": name, "size": size, "seconds": float(f"{seconds:.{DIGITS}g}")}
            self.results.add(line | common | {"config": config})

    # -- training ------------------------------------------------------------------------------------------------------

    def train(self) -> int:
        """Train all unfinished runs, `jobs` in parallel, evaluate each when it ends, and return the exit status."""
        waiting = [run for run in self.runs() if not self._is_done(run)]
        log.info("%d runs to train, %d in parallel", len(waiting), self.jobs)
        torch.set_num_threads(self.threads)
        busy: dict[subprocess.Popen[bytes], Run] = {}
        with stop_on_signals() as stop:
            forwarded = False
            while busy or (waiting and not stop.signal):
                while waiting and len(busy) < self.jobs and not stop.signal:
                    run = waiting.pop(0)
                    busy[self._start(run)] = run
                if stop.signal and not forwarded:
                    forwarded = True
                    for process in busy:
                        process.terminate()
                for process in [process for process in busy if process.poll() is not None]:
                    self._finish(busy.pop(process), process.returncode, bool(stop.signal))
                time.sleep(0.1)
        if stop.signal:
            return 128 + stop.signal
        return 0 if all(self._is_done(run) for run in self.runs()) else 1

    def _start(self, run: Run) -> subprocess.Popen[bytes]:
        """Start a run in its own session, so that Ctrl-C reaches it only once: a second signal would kill it."""
        log.info("%s: %d steps", run, run.steps)
        make_images(self.study.config(run), self.out)
        folder = self.study.folder(run)
        (self.out / folder).parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(REPOSITORY / "train.py"), *self.study.arguments(run, str(self.device))]
        environment = os.environ | {"OMP_NUM_THREADS": str(self.threads)}
        with self._log(run).open("wb") as file:
            return subprocess.Popen(
                [*command, "--out", str(folder)],
                cwd=self.out,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _log(self, run: Run) -> Path:
        return self.out / f"{self.study.folder(run)}.log"

    def _finish(self, run: Run, status: int, stopping: bool) -> None:
        """Add the result of a run, unless it was only stopped."""
        config = self.study.config(run)
        if stopping and status != 0:
            log.info("%s: stopped; the same command resumes it", run)
            return
        facts: dict[str, Any]
        try:
            facts = self._evaluated(run, config) if status == 0 else {"failed": _last_words(self._log(run), status)}
        except UserError as error:
            facts = {"failed": str(error)}
        log.info("%s: %s", run, facts.get("failed", "done"))
        line = {"kind": "run", **asdict(run), "minutes": self.study.minutes, "config": changed_keys(config)}
        self.results.add(line | facts)

    def _evaluated(self, run: Run, config: Config) -> dict[str, Any]:
        folder = self.out / self.study.folder(run)
        start = time.monotonic()
        metrics = self._judge.metrics(run, config, Translator.load(folder, str(self.device)))
        environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
        return {
            "metrics": metrics,
            "alarms": alarms(folder),
            "judging_seconds": round(time.monotonic() - start, 1),
            **{fact: environment[fact] for fact in ("device", "precision", "torch", "python", "git_revision")},
        }


class Judge:
    """Evaluates trained models on validation and test scenes."""

    def __init__(self, out: Path, device: torch.device) -> None:
        self._out, self._device = out, device
        self._evaluators: dict[tuple[object, ...], Evaluator] = {}

    def metrics(self, run: Run, config: Config, translator: Translator) -> dict[str, Metrics]:
        """Evaluate on each of `SCENES`."""
        return {scenes: _rounded(self._evaluator(scenes, run, config).metrics(translator)) for scenes in SCENES}

    def _evaluator(self, scenes: str, run: Run, config: Config) -> Evaluator:
        """Return the evaluator that all runs with the same images share, so that its baselines are computed once."""
        town = run.seed if config.data.synthetic and scenes == "select" else None
        key = (scenes, town, config.data)
        if key not in self._evaluators:
            features, st_lpips = features_if_installed(self._device), st_lpips_if_installed(self._device)
            test = held_out(scenes, config, self._out)
            self._evaluators[key] = Evaluator(test, config.data, features, st_lpips=st_lpips)
        return self._evaluators[key]


def seconds_a_step(configs: dict[str, Config], threads: int) -> dict[str, float]:
    """Measure the step of each configuration on random images, all in turn.

    Steps with and without a lazily applied penalty are weighted by their share: a median of all steps would ignore it.
    """
    torch.set_num_threads(threads)
    device = resolve_device(next(iter(configs.values())).train.device)
    trainers = {}
    for name, config in configs.items():
        configure(device, config.train.deterministic)
        trainers[name] = Trainer(config, device, resolve_precision(config.train.precision, device))
    taken: dict[tuple[str, bool], list[float]] = {}
    for number in range(1 + ROUNDS):
        for name, trainer in trainers.items():
            for is_due, step in _kinds(configs[name]).items():
                trainer.steps_done = step
                seconds = machine.seconds(lambda: trainer.step(_images(trainer)), device)  # noqa: B023
                if number:  # the first is warm-up
                    taken.setdefault((name, is_due), []).append(seconds)
    return {
        name: average_seconds(config, {k: taken[name, k] for k in _kinds(config)}) for name, config in configs.items()
    }


def average_seconds(config: Config, taken: dict[bool, list[float]]) -> float:
    """Return the mean of the medians of steps with and without R1, weighted by how often each occurs."""
    counts = Counter(_r1_due(config, step) for step in range(INTERVAL))
    return sum(statistics.median(taken[is_due]) * count for is_due, count in counts.items()) / INTERVAL


def _kinds(config: Config) -> dict[bool, int]:
    """Return a step with R1, where it is switched on, and one without."""
    return {_r1_due(config, step): step for step in reversed(range(INTERVAL))}


def _r1_due(config: Config, steps_done: int) -> bool:
    return config.loss.r1 > 0 and (steps_done + 1) % INTERVAL == 0


def _images(trainer: Trainer) -> PerDomain[torch.Tensor]:
    train, size = trainer.config.train, trainer.config.data.crop_size
    shape = (train.batch_size * train.grad_accum_steps, 3, size, size)
    return PerDomain.of(lambda _: torch.rand(shape, device=trainer.device) * 2 - 1)


def alarms(folder: Path) -> dict[str, int]:
    """Read from a run's log the alarms that fired, and the first step of each."""
    found: dict[str, int] = {}
    for step, line in logged(folder / "metrics.jsonl"):
        for tag, value in json.loads(line).items():
            if tag.startswith("alarm/") and value:
                found.setdefault(tag.removeprefix("alarm/"), step)
    return found


def _rounded(metrics: Metrics) -> Metrics:
    """Round to few digits, to keep the file small; NaN and Inf become None."""

    def rounded(value: float | None) -> float | None:
        return float(f"{value:.{DIGITS + 1}g}") if value is not None and math.isfinite(value) else None

    return {
        direction: {group: {name: rounded(value) for name, value in values.items()} for group, values in groups.items()}
        for direction, groups in metrics.items()
    }


def _last_words(path: Path, status: int) -> str:
    """Return the error that ended a run, or the last line that it wrote."""
    lines: Sequence[str] = []
    with suppress(OSError):
        lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or ["it wrote nothing"])[-1] + f" (exit status {status})"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "study", type=Path, metavar="STUDY.yaml", help="what to compare, e.g. one of benchmarks/studies"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"), help="folder (default: %(default)s)")
    parser.add_argument("--results", type=Path, metavar="FILE", help="file of results (default: OUT/STUDY.jsonl)")
    parser.add_argument("--minutes", type=float, help="minutes of the machine per run (default: the study's)")
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds 0 to N - 1 (default: the study's)")
    parser.add_argument("--size", type=int, help="side of the images in pixels (default: the study's)")
    parser.add_argument("--only", nargs="+", metavar="SETTING", help="only these settings")
    parser.add_argument("--jobs", type=int, help="parallel runs (default: one per CPU core, or 1 on a GPU)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--dry_run", action="store_true", help="print the plan and its cost, and stop")
    parser.add_argument("--calibrate", action="store_true", help="measure the durations of all steps again, and stop")
    parser.add_argument("--table", action="store_true", help="print the tables of the results so far, and stop")
    return parser


if __name__ == "__main__":
    sys.exit(main())
