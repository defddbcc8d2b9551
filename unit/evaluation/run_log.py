"""Readers of metrics.jsonl and run.log, which may still be written to."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unit.errors import UserError, escape
from unit.files import require_regular_file

RUN_LOG_FILE = "run.log"
START, END = "START", "END"
"""The kinds of the two lines in run.log that are not the console's."""

_MAX_BYTES = 10**9
"""The size of metrics.jsonl: half a million lines."""
MAX_LINE = 1_000_000
"""Bytes of a line of metrics.jsonl; longer ones are foreign, and passed over."""
_MAX_VALUE = 1e30
_MAX_STEP = 10**15
"""The maximum of train.steps."""
_TAIL_BYTES = 16_000_000
"""How much of the end of run.log is read: at a line every 30 s, months."""
_MAX_CHARACTERS = 1000
"""The length of a line from which it is cut off."""
_LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d(?::\d\d)?) (START|END) (?:step (\d{1,18}): )?(.*)")


def logged(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (step, line) for each complete line: a crash may have cut the last one short. A missing file has none."""
    for step, line, _ in _read_metrics(path):
        yield step, line


def logged_values(path: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield (step, tag → value) for each complete line: what is not a finite number, as in a foreign file, is left out.

    Larger values than 1e30 are left out too: sums of them, or the length of an axis, might overflow.
    """
    for step, _, values in _read_metrics(path):
        numbers = {tag: value for tag, value in values.items() if type(value) in (int, float)}
        yield step, {tag: float(value) for tag, value in numbers.items() if abs(value) <= _MAX_VALUE and tag != "step"}


def _read_metrics(path: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    try:
        require_regular_file(path, _MAX_BYTES)
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE):
                with suppress(ValueError, KeyError, TypeError, OverflowError, RecursionError):
                    text = line.decode("utf-8", errors="replace").rstrip("\r\n")
                    values = json.loads(text)
                    if 0 <= (step := int(values["step"])) <= _MAX_STEP:
                        yield step, text, values
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"{escape(path)}: can't be read ({error.strerror}); make it readable, or move it") from error


def format_lines(kind: str, text: str) -> bytes:
    """Format a message of one or more lines for run.log, each with the time and the kind, so that none can be forged.

    `kind` is `START`, `END` or the name of a logging level.
    """
    try:
        now = datetime.now().astimezone()
    except ValueError:  # TZ is a day or more from UTC
        now = datetime.now(UTC)
    time = now.isoformat(sep=" ", timespec="seconds")
    return "".join(f"{time} {kind} {escape(line)}\n" for line in text.splitlines() or [""]).encode()


@dataclass(frozen=True)
class RunEnding:
    """How a part of a run ended, from a start of the program to its end."""

    started: datetime
    ended: datetime | None = None
    """None: no end is recorded; it was killed, or is still running"""
    step: int | None = None
    """the step at which it ended"""
    reason: str = ""
    """finished, the name of a signal, or the error"""

    def __str__(self) -> str:
        if self.ended is None:
            return f"that started at {self.started:%Y-%m-%d %H:%M} was killed (no end is recorded)"
        return f"ended at {self.ended:%Y-%m-%d %H:%M} at step {self.step}: {self.reason}"


def read_run_endings(run: Path) -> list[RunEnding]:
    """Read how the parts of a run ended, oldest first; empty where run.log is missing or can't be read."""
    endings: list[RunEnding] = []
    for line in last_lines(run, None):
        match = _LINE.fullmatch(line)
        if not match:
            continue
        with suppress(ValueError):  # no such date
            time = datetime.fromisoformat(match[1])
            if match[2] == START:
                endings.append(RunEnding(time))
            elif match[3]:
                started = endings.pop().started if endings else time  # its start is no longer in the file's end
                endings.append(RunEnding(started, time, int(match[3]), match[4]))
    return endings


def last_lines(run: Path, count: int | None = 20) -> list[str]:
    """Return the last `count` lines of run.log (None: of its last 16 MB), escaped; empty if it can't be read."""
    path = run / RUN_LOG_FILE
    try:
        if not path.is_file():  # a pipe would be waited for
            return []
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            content = file.read(_TAIL_BYTES)
    except OSError:
        return []
    lines = [line for line in content.decode("utf-8", errors="replace").split("\n") if line]
    return [escape(line[:_MAX_CHARACTERS]) for line in (lines if count is None else lines[-count:])]
