"""A training run that is killed with SIGKILL again and again ends bit for bit like one that was left alone."""

import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.tiny import assert_same_run, metrics, tiny
from unit.config_file import write_config
from unit.evaluation.run_log import logged, read_run_endings

MOMENTS = ("any time", "in training", "while a checkpoint is written")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
def test_a_run_killed_at_random_moments_equals_the_uninterrupted_one(tmp_path: Path, long: bool) -> None:
    kills = 100 if long else 3
    config = tiny(
        train={"steps": 60 * kills, "log_every": 3, "sample_every": 10, "checkpoint_every": 5, "validate_every": 20}
    )
    write_config(config, tmp_path / "config.yaml")
    uninterrupted, run, random_ = tmp_path / "uninterrupted", tmp_path / "run", random.Random(0)
    assert life(tmp_path, uninterrupted).wait() == 0
    died, torn = Counter[str](), 0
    for number in range(kills):
        moment = MOMENTS[number % 3]
        process = life(tmp_path, run, "--data.workers", str(number % 2))
        wait(moment, process, run, random_)
        assert process.poll() is None, "it ended before it was killed; give it more steps"
        process.kill()
        process.wait()
        died[moment] += 1
        torn += any(run.rglob("*.partial"))
    assert life(tmp_path, run).wait() == 0
    assert_same_run(uninterrupted, run)
    *killed, last = read_run_endings(run)
    assert killed
    assert all(ending.ended is None for ending in killed)
    assert last.reason == "finished"
    assert not list(run.rglob("*.partial"))
    assert not list(run.rglob("*.damaged"))
    print(f"\n{died.total()} kills: {dict(died)}, {torn} of them with a file half written; {config.train.steps} steps")
    print(f"{len(metrics(run))} lines of metrics and the newest checkpoint equal")


def life(folder: Path, run: Path, *flags: str) -> "subprocess.Popen[bytes]":
    """The command that starts or resumes the run."""
    command = [sys.executable, "train.py", "--config", str(folder / "config.yaml"), "--out", str(run), *flags]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def wait(moment: str, process: "subprocess.Popen[bytes]", run: Path, random_: random.Random) -> None:
    """Wait until the moment to kill the process."""
    if moment == "any time":  # starting takes most of it
        time.sleep(random_.uniform(0, 5))
        return
    log, checkpoints, events = run / "metrics.jsonl", run / "checkpoints", run / "tensorboard"
    lives = len(list(events.glob("*")))
    while process.poll() is None and len(list(events.glob("*"))) == lives:
        time.sleep(0.01)
    first = last_step(log)  # what was logged after the checkpoint has been dropped by now
    while process.poll() is None and last_step(log) == first:
        time.sleep(0.01)
    time.sleep(random_.uniform(0, 0.3))
    if moment == "while a checkpoint is written":
        while process.poll() is None and not any(checkpoints.glob(".*.partial")):
            pass


def last_step(log: Path) -> int:
    return max((step for step, _ in logged(log)), default=0)
