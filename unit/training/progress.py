"""The speed of a run and the time it has left, for the terminal, the log and TensorBoard."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, TypeVar

import torch
from tqdm import tqdm

T = TypeVar("T")
log = logging.getLogger(__name__)

_ESTIMATE_AFTER = 20
"""Steps; the first few are slow."""
_SECONDS_BETWEEN_LINES = 30.0
"""Without a terminal."""


class Progress(AbstractContextManager["Progress"]):
    """Times a run's steps, and shows a bar if standard error is a terminal, else a log line now and then.

    Args:
        steps: numbers of steps already done, from where this part of the run starts to the end of the run.
        batch_size: images of each domain in a step, of all ranks together.
        max_minutes: `train.max_minutes`.
        device: whose memory is logged.
        visible: draw the bar.
    """

    def __init__(
        self, steps: range, batch_size: int, max_minutes: float | None, device: torch.device, visible: bool = True
    ) -> None:
        self.steps, self.batch_size, self.max_minutes, self.device = steps, batch_size, max_minutes, device
        self._bar: tqdm[Any] = tqdm(
            total=steps.stop,
            initial=steps.start,
            unit="step",
            disable=not (visible and sys.stderr.isatty()),
            dynamic_ncols=True,
            bar_format="{n_fmt}/{total_fmt} {bar:20} {elapsed}, {remaining} to go{postfix}",
        )
        self._done = 0
        self._interval_start = self._last_line = time.monotonic()
        self._interval_steps, self._interval_waited = 0, 0.0

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._bar.close()

    def time_waits(self, items: Iterator[T]) -> Iterator[T]:
        """Yield the items, and count the time spent waiting for them."""
        while True:
            start = time.monotonic()
            try:
                item = next(items)
            except StopIteration:
                return
            self._interval_waited += time.monotonic() - start
            yield item

    def step_done(self) -> None:
        """Count one step."""
        self._done += 1
        self._interval_steps += 1
        self._bar.update()
        if self._done == _ESTIMATE_AFTER:
            self._log_estimate()

    def _log_estimate(self) -> None:
        seconds = (time.monotonic() - self._interval_start) / max(1, self._interval_steps)
        minutes = seconds * (len(self.steps) - self._done) / 60
        limit = f" (train.max_minutes ends it after {self.max_minutes:g} min)" if self.max_minutes else ""
        log.info("%.2f s/step: about %s to go%s", seconds, format_duration(minutes), limit)

    def rates(self) -> dict[str, float]:
        """Images of both domains per second, and the fraction of time spent waiting for them, since the last call."""
        now = time.monotonic()
        seconds = max(now - self._interval_start, 1e-9)
        rates = {
            "perf/images_per_second": 2 * self.batch_size * self._interval_steps / seconds,
            "perf/data_wait_fraction": self._interval_waited / seconds,
        }
        if self.device.type == "cuda":
            rates["perf/gpu_memory_gb"] = torch.cuda.max_memory_allocated(self.device) / 1e9
        self._interval_start, self._interval_steps, self._interval_waited = now, 0, 0.0
        return rates

    def show(self, scalars: Mapping[str, float]) -> None:
        """Show speed and total losses beside the bar, or log them if there is no bar."""
        totals = {name: scalars.get(f"loss/{name}_total") for name in ("generator", "discriminator")}
        losses = " ".join(f"{name} {loss:.3g}" for name, loss in totals.items() if loss is not None)
        speed = f"{scalars['perf/images_per_second']:.1f} images/s"
        seconds = 2 * self.batch_size / scalars["perf/images_per_second"]
        self._bar.set_postfix_str(f"{seconds:.3g} s/step, {speed}, loss: {losses}", refresh=False)
        now = time.monotonic()
        if self._bar.disable and now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            step = self.steps.start + self._done
            to_go = format_duration(seconds * (self.steps.stop - step) / 60)
            log.info(
                "step %d/%d, %.3g s/step, %s, %s to go, loss: %s", step, self.steps.stop, seconds, speed, to_go, losses
            )


def format_duration(minutes: float) -> str:
    """A duration to read, e.g. "9 min" or "3.5 h"."""
    if minutes < 1:
        return "less than a minute"
    if minutes < 100:
        return f"{minutes:.0f} min"
    return f"{minutes / 60:.1f} h" if minutes < 48 * 60 else f"{minutes / 1440:.1f} days"
