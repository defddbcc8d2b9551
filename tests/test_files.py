import errno
import multiprocessing
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from unit.config_file import read_config
from unit.data.shard_index import read_indexes
from unit.data.shard_writer import write_shards
from unit.data.shards import shard_files
from unit.errors import UserError
from unit.evaluation.report.run import Run
from unit.evaluation.run_log import logged
from unit.files import append, atomic_write, is_partial, read_file, wrap_os_errors
from unit.images import read_image
from unit.training import checkpoint
from unit.translation.model_file import load_model


@pytest.mark.parametrize("sync", [True, False])
def test_what_is_written_is_read_and_nothing_else_lies_there(tmp_path: Path, sync: bool) -> None:
    path = tmp_path / "new" / ("x" * 255)
    for content in (b"old", b"new and longer"):
        atomic_write(path, content, sync=sync)
        assert path.read_bytes() == content
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_nothing_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    path = tmp_path / "x"
    atomic_write(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if fails == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(UserError, match=r"No space left on device\); 3 bytes are needed; [\d.]+ \w+ are free there"):
        atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_is_synced_before_it_is_renamed_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: (order.append("sync"), sync(number)))
    monkeypatch.setattr(Path, "replace", lambda self, target: (order.append("rename"), replace(self, target)))
    atomic_write(tmp_path / "x", b"content")
    assert order == (["sync", "rename", "sync"] if os.name == "posix" else ["sync", "rename"])


def test_what_the_system_refuses_is_one_line_with_the_path(tmp_path: Path) -> None:
    path = tmp_path / "two\nlines" / "x"
    with pytest.raises(UserError) as refused, wrap_os_errors(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    message = str(refused.value)
    assert message.isprintable()
    assert r"two\nlines" in message
    assert "No space left on device" in message
    assert " are free there" in message
    assert refused.value.exit_status == 1


def test_a_file_of_the_limits_size_is_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    assert read_file(tmp_path / "x", 5) == b"12345"
    with pytest.raises(OSError, match="larger than 4 bytes"):
        read_file(tmp_path / "x", 4)


READERS: dict[str, Callable[[Path], object]] = {
    "mine.yaml": read_config,
    "metrics.jsonl": lambda file: list(logged(file)),
    "environment.json": lambda file: Run(file.parent).environment,
    "step-00000001.pt": checkpoint.load,
    "model.safetensors": load_model,
    "image.jpg": read_image,
    "photos.jpg": lambda file: write_shards(file.parent, file.parent / "out", 1, 1),
    "shard.tar": lambda file: read_indexes(shard_files(file), None),
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("kind", ["pipe", "device", "hole"])
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_ordinary_file_is_refused_at_once(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "hole":
            path.touch()
            os.truncate(path, 2**40)
    with pytest.raises(UserError, match=f"^{path}: "):
        READERS[name](path)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG])
def test_sizes_are_named_only_where_space_is_lacking(number: int) -> None:
    with pytest.raises(UserError) as refused, wrap_os_errors(Path("x"), 5_000_000):
        raise OSError(number, os.strerror(number))
    assert str(refused.value) == f"x: can't be written ({os.strerror(number)})"


def write_often(path: Path, byte: bytes, start: Any) -> None:
    start.wait(30)
    for _ in range(30):
        atomic_write(path, byte * 1_000_000, sync=False)


def test_writers_of_one_file_all_succeed_and_it_is_always_whole(tmp_path: Path) -> None:
    """Threads of several processes."""
    context = multiprocessing.get_context("spawn")
    path, start = tmp_path / "x", context.Event()
    processes = [context.Process(target=write_often, args=(path, byte, start)) for byte in (b"a", b"b")]
    for process in processes:
        process.start()
    with ThreadPoolExecutor(2) as threads:
        done = [threads.submit(write_often, path, byte, start) for byte in (b"c", b"d")]
        start.set()
        while any(process.is_alive() for process in processes):
            content = path.read_bytes() if path.exists() else b"a" * 1_000_000
            assert content == content[:1] * 1_000_000
    assert [process.exitcode for process in processes] == [0, 0]
    assert [future.result() for future in done] == [None, None]
    assert list(tmp_path.iterdir()) == [path]


def write_and_be_killed(path: Path) -> None:
    """Leave what SIGKILL leaves."""
    Path.replace = lambda *_: os._exit(9)  # type: ignore[assignment,method-assign]
    atomic_write(path, b"killed")


@pytest.mark.skipif(os.name != "posix", reason="needs file locks")
def test_only_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    import fcntl

    path = tmp_path / "x.png"
    killed = multiprocessing.get_context("spawn").Process(target=write_and_be_killed, args=(path,))
    killed.start()
    killed.join(30)
    (left,) = tmp_path.iterdir()
    assert is_partial(left)
    with left.open("rb") as held:  # as while it is being written
        fcntl.flock(held, fcntl.LOCK_EX)
        atomic_write(path, b"new")
        assert left.read_bytes() == b"killed"
    atomic_write(path, b"newer")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="folders are synced on POSIX only")
@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
@pytest.mark.parametrize("refuses", ["folders", "all"])
def test_a_file_system_that_can_not_sync_is_said_once_and_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int, refuses: str
) -> None:
    sync = os.fsync

    def refuse(number: int) -> None:
        if refuses == "all" or stat.S_ISDIR(os.fstat(number).st_mode):
            raise OSError(code, os.strerror(code))
        sync(number)

    monkeypatch.setattr(os, "fsync", refuse)
    monkeypatch.setattr("unit.files._unsynced", set())
    for name in ("x", "folder/y"):
        atomic_write(tmp_path / name, b"content")
        assert (tmp_path / name).read_bytes() == b"content"
    assert caplog.text.count("can't sync") == 1
    assert str(tmp_path) in caplog.text


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_appending_to_a_pipe_that_nobody_reads_is_an_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"pipe: can't be written"):
        append(tmp_path / "pipe", b"x")
    for _ in range(2):
        append(tmp_path / "file", b"x")
    assert (tmp_path / "file").read_bytes() == b"xx"
