"""The logs of a run: metrics.jsonl, TensorBoard's event files, sample grids and run.log."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import shlex
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor
from torch.utils.tensorboard.summary import image, scalar, text

from unit.domains import Domain, PerDomain
from unit.errors import LineFormatter, UserError, escape
from unit.evaluation.grids import stack_vertically
from unit.evaluation.run_log import END, RUN_LOG_FILE, START, format_lines, logged, logged_values
from unit.files import append, atomic_write, fsync, wrap_os_errors
from unit.images import to_image

OVERVIEW = "_overview/"
"""How TensorBoard's first tags begin: it sorts "_" before letters, and opens the first groups."""


class RunLogger:
    """Logs metrics and sample grids; methods raise `UserError` if a file can't be written.

    Args:
        run: the run's directory.
        start: the step that the run resumes from, after which older entries are overwritten; None: a new run.
        domains: the user's names of the domains, for the tags of TensorBoard's overview.
    """

    def __init__(self, run: Path, start: int | None, domains: PerDomain[str] | None = None) -> None:
        domains = domains or PerDomain(*Domain)
        self._direction_names = PerDomain.of(lambda i: f"{domains[i]}_to_{domains[i.other]}")
        self._metrics_path, self._samples_path = run / "metrics.jsonl", run / "samples"
        first_step = 0 if start is None else start + 1
        kept = "".join(f"{line}\n" for step, line in logged(self._metrics_path) if step < first_step)
        atomic_write(self._metrics_path, kept.encode())
        self.validated_steps = {
            step for step, values in logged_values(self._metrics_path) if any(tag.startswith("val/") for tag in values)
        }
        # TensorBoard reads event files in the order of their names, and the clock may have been set back.
        events = run / "tensorboard"
        names = (re.match(r"events\.out\.tfevents\.(\d{1,20})\.", path.name) for path in events.glob("events.out.*"))
        number = max([time.time_ns(), *(1 + int(name[1]) for name in names if name)])
        self._events_path = events / f"events.out.tfevents.{number}.{socket.gethostname()}.{os.getpid()}"
        with wrap_os_errors(self._events_path):
            events.mkdir(parents=True, exist_ok=True)
            self._events_file = self._events_path.open("xb")
        self._event_writer = RecordWriter(self._events_file)
        self._add_event(Event(file_version="brain.Event:2"))
        # TensorBoard ignores what older files hold from this step on.
        self._add_event(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add a line to metrics.jsonl, and a point to each of TensorBoard's curves; alarms have points while on."""
        if any(tag.startswith("val/") for tag in values):
            self.validated_steps.add(step)
        append(self._metrics_path, (json.dumps({"step": step, **values}) + "\n").encode())
        drawn = {tag: value for tag, value in values.items() if value or not tag.startswith("alarm/")}
        drawn |= {overview: values[tag] for tag, overview in self._overview().items() if tag in values}
        self._add(step, [scalar(tag, value) for tag, value in drawn.items()])

    def _overview(self) -> dict[str, str]:
        """Map the tags that matter first to a second tag, in the group that TensorBoard shows first."""
        kids = {f"val/kid_{i.direction}": f"{OVERVIEW}kid_{self._direction_names[i]}" for i in Domain}
        return kids | {f"loss/{part}_total": f"{OVERVIEW}loss_{part}" for part in ("generator", "discriminator")}

    def text(self, step: int, tag: str, content: str) -> None:
        """Add a text to TensorBoard, shown verbatim."""
        self._add(step, [text(tag, "\n".join("    " + line for line in content.splitlines()))])

    def samples(self, step: int, grids: PerDomain[Tensor]) -> None:
        """Add the grids (3, H, W) in [-1, 1] of both directions, indexed by the domain they start from."""
        summaries = [image(f"samples/{i.direction}", (grids[i] + 1) / 2, dataformats="CHW") for i in Domain]
        summaries += [_jpeg(f"{OVERVIEW}samples_{self._direction_names[i]}", to_image(grids[i])) for i in Domain]
        self._add(step, summaries)
        content = io.BytesIO()
        to_image(stack_vertically(list(grids), gap=12)).save(content, "PNG")
        atomic_write(self._sample_path(step), content.getvalue())

    def has_samples(self, step: int) -> bool:
        """True if the grids of this step have been written."""
        return self._sample_path(step).exists()

    def _sample_path(self, step: int) -> Path:
        return self._samples_path / f"step-{step:08d}.png"

    def _add(self, step: int, summaries: Iterable[Summary]) -> None:
        self._add_event(Event(step=step, summary=Summary(value=[value for s in summaries for value in s.value])))

    def _add_event(self, event: Event) -> None:
        # TensorBoard's own writer writes from a thread, which on a full disk dies with a traceback, unnoticed.
        event.wall_time = time.time()
        record = event.SerializeToString()
        with wrap_os_errors(self._events_path, len(record)):
            self._event_writer.write(record)
            self._events_file.flush()  # so that an open page shows it, and a full disk is noticed here

    def flush(self) -> None:
        """Sync everything logged so far to the disk."""
        with wrap_os_errors(self._metrics_path), self._metrics_path.open("ab") as file:
            fsync(file.fileno(), self._metrics_path.parent)
        with wrap_os_errors(self._events_path):
            fsync(self._events_file.fileno(), self._metrics_path.parent)

    def close(self) -> None:
        """Flush and close; do nothing the second time."""
        if not self._events_file.closed:
            with wrap_os_errors(self._events_path), closing(self._events_file):
                self.flush()


class RunLogHandler(logging.Handler):
    """RUN/run.log: the console's messages with their times, and how each part of the run ended.

    Messages are held back until `start`: a command that is refused leaves the run as it is. Methods raise `UserError`
    if the file can't be written; for a message, `check` does, since they come from anywhere, even signal handlers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(LineFormatter())
        self._path: Path | None = None
        self._held_back = b""
        self._error: UserError | None = None
        self._step: Callable[[], int] = int

    @contextmanager
    def capture(self) -> Iterator[None]:
        """Receive the root logger's messages."""
        root = logging.getLogger()
        handlers: list[logging.Handler] = [self]
        if not root.handlers and logging.lastResort:  # which logging would no longer use
            handlers.append(logging.lastResort)
        for handler in handlers:
            root.addHandler(handler)
        try:
            yield
        finally:
            for handler in handlers:
                root.removeHandler(handler)

    def start(self, run: Path, step: Callable[[], int]) -> None:
        """Start a part of the run in its directory, at `step()`."""
        path, command = run / RUN_LOG_FILE, escape(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))
        gap = b"\n" if path.exists() else b""  # which also ends a line that a full disk cut short
        append(path, gap + format_lines(START, f"step {step()}: {command}") + self._held_back)
        self._path, self._step = path, step

    def end(self, reason: str) -> None:
        """Record how this part of the run ended."""
        self._write(END, escape(f"step {self._step()}: {reason}"))  # one line, so that no message forges an entry

    @contextmanager
    def record_errors(self) -> Iterator[None]:
        """Record an error as the end of this part of the run, with its traceback unless it is a `UserError`."""
        try:
            yield
        except BaseException as error:
            with suppress(UserError):  # `error` is what the user has to know
                if isinstance(error, UserError):
                    self.end(f"error: {error}")
                else:
                    self._write("ERROR", traceback.format_exc())
                    self.end(" ".join(f"error: {type(error).__name__}: {error}".split()))
            raise

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message."""
        try:
            self._write(record.levelname, self.format(record))
        except UserError as error:
            self._error = self._error or error

    def check(self) -> None:
        """Raise `UserError` if a message could not be written."""
        if self._error:
            raise self._error

    def _write(self, kind: str, text: str) -> None:
        lines = format_lines(kind, text)
        if self._path:
            append(self._path, lines)
        else:
            self._held_back += lines


def _jpeg(tag: str, grid: Image.Image) -> Summary:
    """Summarize an image in a fraction of a PNG's size."""
    content = io.BytesIO()
    grid.save(content, "JPEG", quality=90)
    value = Summary.Image(height=grid.height, width=grid.width, colorspace=3, encoded_image_string=content.getvalue())
    return Summary(value=[Summary.Value(tag=tag, image=value)])
