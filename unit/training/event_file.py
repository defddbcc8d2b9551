"""TensorBoard's event file.

Its own writer writes from a thread, which on a full disk dies with a traceback, later than the run goes on to believe.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterable
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from unit.files import wrap_os_errors


class EventFile:
    """A new event file in `folder`; whatever older files there hold of steps from `first_step` on counts no more.

    Raises:
        UserError: by each of its methods, when it can't be written.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        # TensorBoard reads the files in the order of their names, and a clock may have been put back.
        number = max([time.time_ns(), *(1 + before for before in _numbers(folder))])
        self._path = folder / f"events.out.tfevents.{number}.{socket.gethostname()}.{os.getpid()}"
        with wrap_os_errors(self._path):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("xb")
        self._records = RecordWriter(self._file)
        self._write(Event(file_version="brain.Event:2"))
        self._write(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))

    def add(self, step: int, summaries: Iterable[Summary]) -> None:
        """What torch.utils.tensorboard.summary makes of scalars, images and texts."""
        self._write(Event(step=step, summary=Summary(value=[value for each in summaries for value in each.value])))

    def sync(self) -> None:
        """Put on the disk what was added so far."""
        with wrap_os_errors(self._path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Add no more."""
        with wrap_os_errors(self._path):
            self._file.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        record = event.SerializeToString()
        with wrap_os_errors(self._path, len(record)):
            self._records.write(record)
            self._file.flush()  # so that an open page shows it, and a full disk shows here


def _numbers(folder: Path) -> list[int]:
    """Those in the names of the event files there."""
    found = (re.match(r"events\.out\.tfevents\.(\d{1,20})\.", path.name) for path in folder.glob("events.out.*"))
    return [int(match[1]) for match in found if match]
