"""Train a matrix of settings × data sets × seeds for an equal time each, and write a Markdown table of the metrics.

    python benchmarks/ablation.py benchmarks/studies/ingredients.yaml --out runs/ablation --dry_run
    python benchmarks/ablation.py benchmarks/studies/ingredients.yaml --out runs/ablation > table.md

The study file says what is compared. Each run is one of train.py in a process of its own; as many go at once as the
CPU has cores, with a thread each (two busy processes of two threads on two cores take ten times as long), on a GPU one.
Ctrl-C saves all of them; the same command goes on, also elsewhere, with a copy of the folder OUT. What has ended is in
OUT/STUDY.jsonl, or --results, and is not trained again, even when the runs' folders are gone; a run that failed is in
the table too, and tried again.

Equal time is equal minutes of the whole machine, as steps: with N runs at once a step costs the machine 1/N of its
seconds. These are measured first, once for a results file, all settings in turn in the same N processes.
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
from benchmarks.ablation_results import Results, costly, tables
from benchmarks.ablation_study import REPOSITORY, SCENES, Run, Study, changed_keys, held_out, make_images, read_study
from unit.config import Config
from unit.devices import configure, resolve_device, resolve_precision
from unit.domains import PerDomain
from unit.errors import UserError
from unit.evaluation.evaluate import Evaluator, Metrics
from unit.evaluation.features import features_if_installed
from unit.evaluation.run_log import logged
from unit.model.extras.r1 import INTERVAL
from unit.training.progress import format_duration
from unit.training.signals import stop_on_signals
from unit.training.trainer import Trainer
from unit.translation.translator import Translator

log = logging.getLogger(__name__)

ROUNDS = 20
"""Measurements of each kind of step, after one to warm up."""
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
        bench.measure_speed(anew=arguments.calibrate)
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
    """How many runs at once: a GPU is one run's, of a CPU each gets a core."""
    return (os.cpu_count() or 1) if device.type == "cpu" else 1


def steps_for(minutes: float, seconds: float) -> int:
    """Equal time as steps."""
    return max(1, round(60 * minutes / seconds))


class Bench:
    """A study on this machine.

    Args:
        study: what to compare.
        out: the folder of all runs, where they are trained, so that no path of this machine gets into them.
        results: what is known already, and where to put what is found.
        device: to train on.
        jobs: how many runs go at once.
    """

    def __init__(self, study: Study, out: Path, results: Results, device: torch.device, jobs: int) -> None:
        self.study, self.out, self.results, self.device, self.jobs = study, out, results, device, jobs
        self.threads = max(1, (os.cpu_count() or 1) // jobs)
        self._judge = Judge(out, device)
        for setting in study.settings:  # what can't be used is to be known before hours are spent
            for run in self._runs(setting, 1000):
                study.config(run)

    # -- what is to be done --------------------------------------------------------------------------------------------

    def runs(self) -> list[Run]:
        """All runs, seed by seed, so that what is there early has all settings; 0 steps where they are unknown."""
        each = [run for setting in self.study.settings for run in self._runs(setting, self._steps(setting))]
        return sorted(each, key=lambda run: self.study.seeds.index(run.seed))

    def _runs(self, setting: str, steps: int) -> Iterator[Run]:
        study = self.study
        return (Run(setting, data, study.size, seed, steps) for data in study.data for seed in study.seeds)

    def _steps(self, setting: str) -> int:
        speed = self.results.speed(setting, self.study.size)
        if self.study.minutes is None:
            return self.study.steps or 0
        return steps_for(self.study.minutes, speed["seconds"]) if speed else 0

    def plan(self) -> str:
        """Settings, steps and what it all costs; nothing is measured for it."""
        study, runs = self.study, self.runs()
        waiting = [run for run in runs if not self._is_done(run)]
        lines = [f"{study.name}: {len(runs)} runs, {len(runs) - len(waiting)} of them done; {self.jobs} at once"]
        for setting, keys in study.settings.items():
            speed, steps = self.results.speed(setting, study.size), self._steps(setting)
            pace = f"{steps:,} steps of {speed['seconds']:.3g} s" if speed else "its steps not yet measured"
            changes = ", ".join(f"{key} {value}" for key, value in keys.items()) or "as common"
            lines.append(f"  {setting} ({pace}): {changes}")
        minutes = [self._minutes(run) for run in waiting]
        cost = "unknown until the steps are measured (--calibrate)"
        if None not in minutes:
            cost = format_duration(sum(it or 0 for it in minutes))
        return "\n".join([*lines, f"to train: {cost} of this machine, and some seconds a run to measure the result"])

    def require_same(self) -> None:
        """Raise `ConfigError` where the study's settings are no longer those that the results are of."""
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

    # -- how long a step takes -----------------------------------------------------------------------------------------

    def measure_speed(self, *, anew: bool) -> None:
        """Measure the settings whose speed is unknown, or all."""
        study, size = self.study, self.study.size
        unknown = [name for name in study.settings if anew or not self.results.speed(name, size)]
        if not unknown:
            return
        log.info("measuring the steps of %d settings in %d processes", len(unknown), self.jobs)
        first = {name: next(self._runs(name, 1000)) for name in unknown}
        configs = {name: study.config(run, str(self.device)) for name, run in first.items()}
        with ProcessPoolExecutor(self.jobs, mp_context=get_context("spawn")) as pool:
            work = [pool.submit(seconds_a_step, configs, self.threads) for _ in range(self.jobs)]
            measured = [each.result() for each in work]
        precision = resolve_precision(next(iter(configs.values())).train.precision, self.device)
        common = machine.facts(self.device) | {"threads": self.threads, "jobs": self.jobs, "precision": precision}
        for name in unknown:
            seconds = statistics.median(each[name] for each in measured) / self.jobs
            config = costly(changed_keys(configs[name]))
            line = {"kind": "speed", "setting": name, "size": size, "seconds": float(f"{seconds:.{DIGITS}g}")}
            self.results.add(line | common | {"config": config})

    # -- training ------------------------------------------------------------------------------------------------------

    def train(self) -> int:
        """All runs that are not done, `jobs` at once, each measured when it ends; returns the exit status."""
        waiting = [run for run in self.runs() if not self._is_done(run)]
        log.info("%d runs to do, %d at once", len(waiting), self.jobs)
        torch.set_num_threads(self.threads)
        busy: dict[subprocess.Popen[bytes], Run] = {}
        with stop_on_signals() as stop:
            told = False
            while busy or (waiting and not stop.signal):
                while waiting and len(busy) < self.jobs and not stop.signal:
                    run = waiting.pop(0)
                    busy[self._start(run)] = run
                if stop.signal and not told:
                    told = True
                    for process in busy:
                        process.terminate()
                for process in [it for it in busy if it.poll() is not None]:
                    self._finish(busy.pop(process), process.returncode, bool(stop.signal))
                time.sleep(0.1)
        if stop.signal:
            return 128 + stop.signal
        return 0 if all(self._is_done(run) for run in self.runs()) else 1

    def _start(self, run: Run) -> subprocess.Popen[bytes]:
        """In a session of its own: Ctrl-C reaches it through us alone, for a second signal would end it at once."""
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
        """Put into the results what became of a run, unless it was only stopped."""
        config = self.study.config(run)
        if stopping and status != 0:
            log.info("%s: stopped; the same command goes on", run)
            return
        facts: dict[str, Any]
        try:
            facts = self._measured(run, config) if status == 0 else {"failed": _last_words(self._log(run), status)}
        except UserError as error:
            facts = {"failed": str(error)}
        log.info("%s: %s", run, facts.get("failed", "done"))
        line = {"kind": "run", **asdict(run), "minutes": self.study.minutes, "config": changed_keys(config)}
        self.results.add(line | facts)

    def _measured(self, run: Run, config: Config) -> dict[str, Any]:
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
    """Measures trained models on the scenes to choose by and on those to report on."""

    def __init__(self, out: Path, device: torch.device) -> None:
        self._out, self._device = out, device
        self._evaluators: dict[tuple[object, ...], Evaluator] = {}

    def metrics(self, run: Run, config: Config, translator: Translator) -> dict[str, Metrics]:
        """For each of `SCENES`."""
        return {scenes: _rounded(self._evaluator(scenes, run, config).metrics(translator)) for scenes in SCENES}

    def _evaluator(self, scenes: str, run: Run, config: Config) -> Evaluator:
        """One for all runs with the same images, of which it then knows all that doesn't depend on the model."""
        town = run.seed if config.data.synthetic and scenes == "select" else None
        key = (scenes, town, config.data)
        if key not in self._evaluators:
            features = features_if_installed(self._device)
            self._evaluators[key] = Evaluator(held_out(scenes, config, self._out), config.data, features)
        return self._evaluators[key]


def seconds_a_step(configs: dict[str, Config], threads: int) -> dict[str, float]:
    """Of each configuration, on made-up images, all measured in turn; what is not in every step counts by its share.

    A median of all steps would pass over a penalty that is due in every 16th.
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
                if number:  # the first of each warms up
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
    """The alarms that a run's log has, and the step at which each began."""
    found: dict[str, int] = {}
    for step, line in logged(folder / "metrics.jsonl"):
        for tag, value in json.loads(line).items():
            if tag.startswith("alarm/") and value:
                found.setdefault(tag.removeprefix("alarm/"), step)
    return found


def _rounded(metrics: Metrics) -> Metrics:
    """To so many digits, that the file stays small; what is no number as None."""

    def rounded(value: float | None) -> float | None:
        return float(f"{value:.{DIGITS + 1}g}") if value is not None and math.isfinite(value) else None

    return {
        direction: {guess: {name: rounded(value) for name, value in it.items()} for guess, it in groups.items()}
        for direction, groups in metrics.items()
    }


def _last_words(path: Path, status: int) -> str:
    """The error that ended a run, or the last line that it wrote."""
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
        "study", type=Path, metavar="STUDY.yaml", help="what to compare; some are in benchmarks/studies"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"), help="folder (default: %(default)s)")
    parser.add_argument("--results", type=Path, metavar="FILE", help="what is found (default: OUT/STUDY.jsonl)")
    parser.add_argument("--minutes", type=float, help="of the machine for each run (default: the study's)")
    parser.add_argument("--seeds", type=int, metavar="N", help="0 to N - 1 (default: the study's)")
    parser.add_argument("--size", type=int, help="side of the images in pixels (default: the study's)")
    parser.add_argument("--only", nargs="+", metavar="SETTING", help="these settings alone")
    parser.add_argument("--jobs", type=int, help="runs at once (default: on a CPU one for each core, else 1)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--dry_run", action="store_true", help="say what it would cost, and stop")
    parser.add_argument("--calibrate", action="store_true", help="measure how long the steps take anew, and stop")
    parser.add_argument("--table", action="store_true", help="only print the tables of what is found so far")
    return parser


if __name__ == "__main__":
    sys.exit(main())
