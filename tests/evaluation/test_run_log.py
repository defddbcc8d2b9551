"""The reader of run.log: the endings of a run's parts, whatever else is in the file."""

import os
import random
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from unit.evaluation.run_log import END, START, RunEnding, format_lines, last_lines, read_run_endings

LOG = """\
2026-11-24 10:00:00+00:00 START step 0: train.py --out runs/x
2026-11-24 10:00:01+00:00 INFO runs/x on cpu (2 threads), fp32
2026-11-24 10:12:07+00:00 END step 1234: SIGTERM

2026-11-24 11:00:00+00:00 START step 1234: train.py --out runs/x

2026-11-24 12:00:00+01:00 START step 1000: train.py --out runs/x
2026-11-24 12:30:00+01:00 END step 1500: error: x.jpg: damaged
"""


def test_each_part_has_its_ending(tmp_path: Path) -> None:
    (tmp_path / "run.log").write_text(LOG)
    stopped, killed, failed = read_run_endings(tmp_path)
    assert stopped == RunEnding(
        datetime(2026, 11, 24, 10, tzinfo=UTC), datetime(2026, 11, 24, 10, 12, 7, tzinfo=UTC), 1234, "SIGTERM"
    )
    assert str(stopped) == "ended at 2026-11-24 10:12 at step 1234: SIGTERM"
    assert str(killed) == "that started at 2026-11-24 11:00 was killed (no end is recorded)"
    assert (failed.step, failed.reason) == (1500, "error: x.jpg: damaged")
    assert last_lines(tmp_path, 1) == ["2026-11-24 12:30:00+01:00 END step 1500: error: x.jpg: damaged"]


def test_no_message_is_taken_for_an_ending(tmp_path: Path) -> None:
    forged = LOG.splitlines()[2]
    log = format_lines(START, "step 0: train.py") + format_lines("WARNING", f"a\n{forged}\rb\u2028{forged}\x1b[2J")
    (tmp_path / "run.log").write_bytes(log)
    (ending,) = read_run_endings(tmp_path)
    assert ending.ended is None
    (tmp_path / "run.log").write_bytes(log + format_lines(END, f"step 7: error: {forged}"))
    (ending,) = read_run_endings(tmp_path)
    assert ending.step == 7
    assert all(line.isprintable() for line in last_lines(tmp_path))


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="needs time zones of the environment")
@pytest.mark.parametrize("zone", ["LMT0:01:15", "UTC+25"])
def test_any_time_zone_is_written_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        (tmp_path / "run.log").write_bytes(format_lines(START, "step 0: x") + format_lines(END, "step 3: finished"))
    time.tzset()
    (ending,) = read_run_endings(tmp_path)
    assert ending.step == 3
    assert abs((datetime.now(UTC) - ending.started).total_seconds()) < 60


def test_garbage_is_passed_over(tmp_path: Path) -> None:
    odd = [
        random.Random(0).randbytes(100_000),
        b"\0" * 5000,
        b"9999-99-99 99:99:99+99:99 END step 3: x",
        b"2026-11-24 10:13:00+00:00 END step " + b"9" * 5000 + b": x",
        b"2026-11-24 10:13:00+00:00 END",
        b"x" * 100_000,
        "2026-11-24 10:13:00+00:00 INFO \u202e\x07".encode(),
    ]
    lines = LOG.encode().splitlines()
    (tmp_path / "run.log").write_bytes(b"\n".join(part for pair in zip(odd, lines, strict=False) for part in pair))
    endings = read_run_endings(tmp_path)
    assert [ending.reason for ending in endings] == ["SIGTERM", "", ""]
    assert all(line.isprintable() and len(line) < 20_000 for line in last_lines(tmp_path, None))


def test_of_a_huge_file_the_end_is_read(tmp_path: Path) -> None:
    with (tmp_path / "run.log").open("wb") as file:
        file.truncate(10_000_000_000)
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + LOG.encode())
    assert len(read_run_endings(tmp_path)) == 3
    assert len(last_lines(tmp_path, 3)) == 3


def test_an_ending_whose_start_is_too_far_back_counts(tmp_path: Path) -> None:
    (tmp_path / "run.log").write_text(LOG.split("\n", 2)[2])
    assert [ending.reason for ending in read_run_endings(tmp_path)] == ["SIGTERM", "", "error: x.jpg: damaged"]


@pytest.mark.parametrize("kind", ["missing", "folder", "loop", "pipe"])
def test_where_there_is_no_log_there_are_no_endings(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "run.log"
    match kind:
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path)
        case "pipe":
            os.mkfifo(path)
    assert read_run_endings(tmp_path) == []
    assert last_lines(tmp_path) == []
