import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tiny import TINY, tiny
from unit.errors import UserError
from unit.training.loop import train
from unit.training.run_dir import archive_run, locked

HOLDER = "import sys, time; from pathlib import Path; from unit.training.run_dir import locked\n"
HOLDER += "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen[str]:
    """Another process that holds the folder "run"."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_with_the_first_ones_pid(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    before = sorted((tmp_path / "run").iterdir())
    for restart in (False, True):
        with pytest.raises(UserError, match=rf"run: process {holder.pid} is training there") as refused:
            train(TINY, tmp_path / "run", restart=restart)
        assert refused.value.exit_status == 1
    assert sorted((tmp_path / "run").iterdir()) == before


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "run" / ".lock-holder").read_text() == str(holder.pid)
    with locked(tmp_path / "run"):
        assert (tmp_path / "run" / ".lock-holder").read_text() == str(os.getpid())


def test_the_same_process_may_not_train_twice_at_once(tmp_path: Path) -> None:
    with locked(tmp_path / "run"), pytest.raises(UserError, match=f"process {os.getpid()} "):
        train(TINY, tmp_path / "run")


def test_the_folder_is_free_after_success_and_failure(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ValueError), locked(tmp_path / "run"):
            raise ValueError
    with locked(tmp_path / "run"):
        pass


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="fork")
def test_the_loader_processes_of_a_killed_run_do_not_hold_its_lock(tmp_path: Path) -> None:
    config = tiny(train={"steps": 100_000, "checkpoint_every": 100_000}, data={"workers": 2})
    child = os.fork()
    if child == 0:
        train(config, tmp_path / "run")
        os._exit(1)
    log = tmp_path / "run" / "metrics.jsonl"
    while not log.exists() or not log.read_text():
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with locked(tmp_path / "run"):
        pass


def test_only_run_directories_are_archived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "x.jpg").touch()
    with pytest.raises(UserError, match="not a run directory"):
        archive_run(tmp_path / "photos")
    with locked(tmp_path / "run"):
        pass
    monkeypatch.chdir(tmp_path / "run")
    with pytest.raises(UserError, match="the current directory is in it"):
        archive_run(Path())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "run"]


@pytest.mark.parametrize("name", ["config.yaml", "report.html", "model.safetensors"])
def test_files_of_a_folder_that_is_no_run_are_not_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text("mine")
    for restart in (False, True):
        with pytest.raises(UserError, match="mine: not a run directory"):
            train(TINY, tmp_path / "mine", restart=restart)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == [name]
    assert (tmp_path / "mine" / name).read_text() == "mine"


def test_archive_run_takes_the_first_free_name(tmp_path: Path) -> None:
    assert archive_run(tmp_path / "run") is None
    (tmp_path / "run.1").mkdir()
    with locked(tmp_path / "run"):
        (tmp_path / "run" / "x").write_text("kept")
    assert archive_run(tmp_path / "run") == tmp_path / "run.2"
    assert (tmp_path / "run.2" / "x").read_text() == "kept"


@pytest.mark.parametrize("dangling", [False, True])
def test_a_run_behind_a_link_restarts_where_the_link_points(tmp_path: Path, dangling: bool) -> None:
    disk, link = tmp_path / "disk" / "run", tmp_path / "run"
    link.symlink_to(disk)
    if not dangling:
        disk.mkdir(parents=True)
        (disk / "run.log").touch()
        assert archive_run(link) == tmp_path / "disk" / "run.1"
    with locked(link):
        assert (disk / ".lock").exists()


def test_a_link_to_itself_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "run").symlink_to(tmp_path / "run")
    for restart in (False, True):
        with pytest.raises(UserError, match="run: "):
            train(TINY, tmp_path / "run", restart=restart)
