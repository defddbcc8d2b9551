"""Ranks that cannot reach each other end."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta

import psutil
import pytest
from torch.distributed import TCPStore

from tests.training.test_distributed import free_port
from unit.errors import ConfigError, UserError
from unit.training import distributed, heartbeat
from unit.training.distributed import init_distributed, is_main_process
from unit.training.heartbeat import Heartbeat

STORE = """
import sys, time
from torch.distributed import TCPStore
store = TCPStore("127.0.0.1", int(sys.argv[1]), is_master=True, wait_for_workers=False)
print("ready", flush=True)
time.sleep(300)
"""


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """A free port, in the environment as torchrun sets it for the first of two processes."""
    number = free_port()
    ours = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(number)}
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    return number


@pytest.fixture
def store(port: int) -> Iterator[psutil.Process]:
    """A process that serves the store, as torchrun does."""
    with subprocess.Popen([sys.executable, "-c", STORE, str(port)], stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        yield psutil.Process(process.pid)
        process.kill()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="a process is stopped as on POSIX")
def test_a_store_that_does_not_answer_counts_as_lost(
    store: psutil.Process, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when its machine loses power: nothing closes the connection."""
    monkeypatch.setattr(heartbeat, "_INTERVAL", 0.1)
    monkeypatch.setattr(heartbeat, "_TIMEOUT_AFTER_ERROR", 2.0)
    client = TCPStore("127.0.0.1", port, is_master=False)
    heart = Heartbeat(client, 1, ["rank 0", "rank 1"])
    try:
        time.sleep(1)
        store.suspend()
        time.sleep(0.5)
        assert "rank 0's machine, or torchrun there" in str(heart.explain(RuntimeError("timeout")))
    finally:
        store.kill()
        heart.stop()


@pytest.mark.slow
def test_a_rank_that_never_starts_is_not_waited_for(port: int, monkeypatch: pytest.MonkeyPatch, store: object) -> None:
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setattr(distributed, "_START_TIMEOUT", timedelta(seconds=2))
    with pytest.raises(UserError, match="rank 0: rank 1 of 2 did not start within 2 s"), init_distributed():
        pytest.fail("rank 1 is not there")


@pytest.mark.parametrize("missing", ["RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_an_incomplete_environment_is_refused(port: int, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.delenv(missing)
    with (
        pytest.raises(ConfigError, match=r"^WORLD_SIZE is 2 .*start several processes with torchrun"),
        init_distributed(),
    ):
        pytest.fail("no rank can have started")


def test_without_torchrun_the_process_is_the_main_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("RANK", "1")
    assert is_main_process()
