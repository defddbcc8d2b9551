"""Several processes that torchrun starts train as one, over Gloo."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from torch import nn

from tests.tiny import metrics, tiny
from tests.training import ranks as work
from unit.__main__ import main
from unit.config import Config
from unit.config_file import to_yaml
from unit.domains import Domain
from unit.errors import UserError
from unit.training import checkpoint
from unit.training.distributed import SINGLE_PROCESS, Ranks
from unit.training.loop import train

T = TypeVar("T")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
pytestmark = pytest.mark.slow


def torchrun(*arguments: str, ranks: int = 2) -> list[str]:
    return [*TORCHRUN, "--nproc-per-node", str(ranks), "--standalone", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300, check=False)


@contextmanager
def started(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file, subprocess.Popen(command, env=environment(), stdout=file, stderr=file) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
                process.kill()


def difference(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of tests/training/ranks.py on two ranks."""
    path = tmp_path_factory.mktemp("ranks") / "results.pt"
    process = run(torchrun("-m", "tests.training.ranks", str(path)))
    assert process.returncode == 0, process.stderr
    results: dict[str, Any] = torch.load(path, weights_only=True)
    return results


def test_two_ranks_have_the_gradient_of_one_with_twice_the_batch(two_ranks: dict[str, Any]) -> None:
    expected = work.first_gradients(work.config(2), SINGLE_PROCESS)
    assert difference(two_ranks["gradients"], expected) <= 1e-5
    half = work.first_gradients(work.config(1), SINGLE_PROCESS)
    assert difference(half, expected) > 1e-2  # or the test could not tell


def test_after_ten_steps_the_weights_are_those_of_one_rank(two_ranks: dict[str, Any]) -> None:
    assert difference(two_ranks["weights"], work.last_weights(work.config(2), SINGLE_PROCESS)) <= 1e-10


def test_accumulated_gradients_are_those_of_one_batch(two_ranks: dict[str, Any]) -> None:
    """In one process and on two ranks."""
    expected = work.first_gradients(work.config(4), SINGLE_PROCESS)
    assert difference(work.first_gradients(work.config(1, 4), SINGLE_PROCESS), expected) <= 1e-5
    assert difference(work.first_gradients(work.config(2, 2), SINGLE_PROCESS), expected) <= 1e-5
    assert difference(two_ranks["accumulated"], expected) <= 1e-5


def test_accumulated_steps_end_at_the_same_weights() -> None:
    one_batch, accumulated = (work.last_weights(work.config(*sizes), SINGLE_PROCESS) for sizes in ((4, 1), (1, 4)))
    assert difference(accumulated, one_batch) <= 1e-10


def test_all_ranks_have_the_same_weights_at_every_step(two_ranks: dict[str, Any]) -> None:
    for first, second in two_ranks["digests"]:
        assert first == second
    assert len({first for first, _ in two_ranks["digests"]}) == 3


def test_collectives(two_ranks: dict[str, Any]) -> None:
    results = two_ranks["collectives"]
    assert results["max"] == [1, 5]
    assert results["min"].tolist() == [0, -1]
    assert results["mean"] == {"x": 0.5, "y": 3.0}
    assert results["gathered"] == ["rank 0", "rank 1"]
    assert results["broadcast"] == "first"
    assert results["indices"] == [[12, 13], [14, 15]]
    assert results["different"] == "train.seed is 0 on rank 0, but 1 on rank 1; make them equal"


def test_gradients_are_averaged_where_there_are_any(two_ranks: dict[str, Any]) -> None:
    for vector, matrix, unused in two_ranks["collectives"]["averaged"]:
        assert vector.tolist() == [0.5, 5.0]
        assert matrix.tolist() == [[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]]
        assert unused is None


def test_what_fails_on_one_rank_fails_on_all(two_ranks: dict[str, Any]) -> None:
    own, peers = ("DataError", "folder: empty"), "PeerError"
    assert two_ranks["collectives"]["errors"] == [
        [None, own, (peers, "rank 1: folder: empty")],
        [None, (peers, "rank 0: folder: empty"), own],
    ]


def test_a_single_process_communicates_with_itself() -> None:
    assert SINGLE_PROCESS.is_main
    assert SINGLE_PROCESS.all_reduce_max(3, 4) == [3, 4]
    assert SINGLE_PROCESS.all_reduce_mean({"x": 0.1}) == {"x": 0.1}
    assert SINGLE_PROCESS.all_gather("x") == ["x"]
    assert SINGLE_PROCESS.broadcast("x") == "x"
    assert SINGLE_PROCESS.sample_indices(3, 2) == range(6, 8)
    SINGLE_PROCESS.require_same({"x": 1})
    with pytest.raises(ValueError, match="as it is"), SINGLE_PROCESS.fail_together():
        raise ValueError("as it is")


class Diverged(Ranks):
    """Rank 0 of two, where the other has different weights."""

    def all_gather(self, value: T) -> list[T]:
        return [value, str(value)[::-1]] if isinstance(value, str) else [value, value]  # type: ignore[list-item]

    def broadcast(self, value: T) -> T:
        return value

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        pass

    def _all_reduce(self, values: torch.Tensor, operation: object) -> torch.Tensor:
        return values


def test_ranks_with_different_weights_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unit.training.loop.init_distributed", lambda: nullcontext(Diverged(0, 2)))
    monkeypatch.setattr("unit.training.loop.CHECK_SYNC_EVERY", 4)
    with pytest.raises(
        UserError, match=r"^step 4: the weights of rank 1 are no longer those of rank 0: .* Start the run"
    ):
        train(tiny(), tmp_path / "run")
    assert checkpoint.available(tmp_path / "run" / "checkpoints")[0][0] == 2


# -- whole runs --------------------------------------------------------------------------------------------------------


def train_arguments(config: Config, folder: Path) -> list[str]:
    """Write a configuration; returns the arguments that train with it into a folder beside it."""
    path = folder / "config.yaml"
    path.write_text(to_yaml(config))
    return ["train.py", "--config", str(path), "--out", str(folder / "run")]


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def test_two_machines_train_and_one_continues(tmp_path: Path) -> None:
    """With the metrics of one process up to rounding, since the images and their order are the same; logged once."""
    slow = {"learning_rate_generator": 1e-5, "learning_rate_discriminator": 1e-5}  # Adam amplifies rounding
    config = tiny(train={"batch_size": 1, "steps": 4}, optimizer=slow)
    address = ["--nnodes", "2", "--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    arguments = train_arguments(config, tmp_path)
    node = [*TORCHRUN, *address, "--nproc-per-node", "1", "--node-rank"]
    with started([*node, "1", *arguments[:-1], str(tmp_path / "elsewhere")], tmp_path / "log1") as other:
        process = run([*node, "0", *arguments])
        assert process.returncode == 0, process.stderr
        assert other.wait(60) == 0
    assert "ended at step 4" in process.stdout
    assert "ended" not in (tmp_path / "log1").read_text()
    assert not (tmp_path / "elsewhere").exists()
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["ranks"] == 2

    for name in ("run", "alone"):
        train(tiny(train={"batch_size": 2, "steps": 8}, optimizer=slow), tmp_path / name)
    both, alone = metrics(tmp_path / "run"), metrics(tmp_path / "alone")
    both.remove(next(line for line in both if line["step"] == 4 and "val/psnr_a2b" in line))  # where they ended
    assert [line["step"] for line in both] == [line["step"] for line in alone]
    for ours, theirs in zip(both, alone, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-3)


def test_all_ranks_start_from_a_run_that_only_the_first_machine_sees(tmp_path: Path) -> None:
    """And remember it: with the metrics of one process up to rounding."""
    train(tiny(train={"steps": 2}), tmp_path / "first")
    assert main(["importance", str(tmp_path / "first"), "--images", "1", "--device", "cpu"]) == 0
    slow = {"learning_rate_generator": 1e-5, "learning_rate_discriminator": 1e-5}
    keys = {"steps": 4, "seed": 1, "init_from": str(tmp_path / "first")}
    loss = {"memory": 1000.0}
    arguments = train_arguments(tiny(train=keys | {"batch_size": 1}, optimizer=slow, loss=loss), tmp_path)
    address = ["--nnodes", "2", "--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    node = [*TORCHRUN, *address, "--nproc-per-node", "1", "--node-rank"]
    with started([*node, "1", *arguments, "--train.init_from=/nowhere"], tmp_path / "log1") as other:
        process = run([*node, "0", *arguments])
        assert process.returncode == 0, process.stderr
        assert other.wait(60) == 0
    train(tiny(train=keys | {"batch_size": 2}, optimizer=slow, loss=loss), tmp_path / "alone")
    for ours, theirs in zip(metrics(tmp_path / "run"), metrics(tmp_path / "alone"), strict=True):
        assert {name: ours[name] for name in theirs} == pytest.approx(theirs, rel=1e-3, abs=1e-3)


def test_another_global_batch_is_another_run(tmp_path: Path) -> None:
    config = tiny(train={"batch_size": 1, "grad_accum_steps": 2, "steps": 2})
    train(config, tmp_path / "run")
    process = run(torchrun(*train_arguments(config, tmp_path)))
    assert process.returncode != 0
    assert "train.batch_size × train.grad_accum_steps × ranks: 2 before, 4 now" in process.stderr


def long_run() -> Config:
    return tiny(train={"batch_size": 1, "steps": 100_000, "checkpoint_every": 5, "sample_every": 10_000})


def rank_processes(launcher: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Return torchrun's workers, by rank."""
    workers = {}
    for process in psutil.Process(launcher.pid).children(recursive=True):
        if "train.py" in process.cmdline() and "RANK" in process.environ():
            workers[int(process.environ()["RANK"])] = process
    return [workers[rank] for rank in sorted(workers)]


def wait_for_step(run: Path, step: int) -> None:
    deadline = time.monotonic() + 120
    while not any(int(path.stem[5:]) >= step for path in (run / "checkpoints").glob("step-*.pt")):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as on POSIX")
def test_a_killed_rank_ends_the_job_with_its_name(tmp_path: Path) -> None:
    with started(torchrun(*train_arguments(long_run(), tmp_path)), tmp_path / "log") as job:
        wait_for_step(tmp_path / "run", 5)
        rank_processes(job)[1].kill()
        killed = time.monotonic()
        assert job.wait(60) != 0
        assert time.monotonic() - killed < 60
    log = (tmp_path / "log").read_text()
    assert re.search(r"error: rank 1 on \S+: killed, hung or disconnected", log)
    assert "RuntimeError" not in log
    assert checkpoint.load(checkpoint.available(tmp_path / "run" / "checkpoints")[0][1])


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as on POSIX")
def test_a_rank_that_hangs_ends_the_job_too(tmp_path: Path, long: bool) -> None:
    if not long:
        pytest.skip("takes a minute; run by make faults")
    with started(torchrun(*train_arguments(long_run(), tmp_path)), tmp_path / "log") as job:
        wait_for_step(tmp_path / "run", 5)
        first, second = rank_processes(job)
        second.suspend()
        stopped = time.monotonic()
        first.wait(60)
        assert time.monotonic() - stopped < 60
    assert re.search(r"error: rank 1 on \S+: killed, hung or disconnected", (tmp_path / "log").read_text())


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as on POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_torchrun_saves_the_step(tmp_path: Path, number: signal.Signals, long: bool) -> None:
    if number == signal.SIGINT and not long:
        pytest.skip("like SIGTERM; run by make faults")
    with started(torchrun(*train_arguments(long_run(), tmp_path)), tmp_path / "log") as job:
        wait_for_step(tmp_path / "run", 5)
        job.send_signal(number)
        job.wait(60)
    log = (tmp_path / "log").read_text()
    ended = re.search(r"stopped at step (\d+)", log)
    assert ended, log
    assert checkpoint.available(tmp_path / "run" / "checkpoints")[0][0] == int(ended[1])
    assert f"{number.name}: finishing this step and saving" in log


def test_an_image_that_one_rank_cannot_read_ends_all_and_loses_nothing(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for i in Domain:
        (tmp_path / i).mkdir()
        for k in range(40):
            Image.fromarray(random.integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(tmp_path / i / f"{k}.png")
    bad = sorted((tmp_path / "a").iterdir())[7]
    bad.write_bytes(bad.read_bytes()[:-200])  # its header is good
    data = {"a": str(tmp_path / "a"), "b": str(tmp_path / "b"), "name_a": "x", "name_b": "y"}
    process = run(torchrun(*train_arguments(tiny(data=data, train={"batch_size": 1, "steps": 40}), tmp_path)))
    assert process.returncode != 0
    steps = [line["step"] for line in metrics(tmp_path / "run")]
    assert checkpoint.available(tmp_path / "run" / "checkpoints")[0][0] == max(steps)
    assert str(bad) in process.stderr
