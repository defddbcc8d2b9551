"""The speed of a run and the time it has left, for the terminal, the log and TensorBoard."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from tqdm import tqdm

log = logging.getLogger(__name__)

_ESTIMATE_AFTER = 20
"""Steps; the first few are slow."""
_SECONDS_BETWEEN_LINES = 30.0
"""Without a terminal."""


class Progress:
    """Times a run's steps, and shows a bar if standard error is a terminal, else a log line now and then.

    `steps` are those from here to the end of the run; `batch_size` counts a domain's images per step on all ranks.
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
            bar_format="{n_fmt}/{total_fmt} {bar:20} {elapsed}, {remaining} remaining{postfix}",
        )
        self._done, self._last_line = 0, time.monotonic()
        self._interval_start, self._interval_steps, self._interval_waited = self._last_line, 0, 0.0

    def close(self) -> None:
        """Close the bar."""
        self._bar.close()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time in the block as spent waiting for images."""
        start = time.monotonic()
        yield
        self._interval_waited += time.monotonic() - start

    def step_done(self) -> None:
        """Count one step; after the first few, log an estimate of the remaining time."""
        self._done += 1
        self._interval_steps += 1
        self._bar.update()
        if self._done == _ESTIMATE_AFTER:
            seconds = (time.monotonic() - self._interval_start) / self._interval_steps
            limit = f" (train.max_minutes ends it after {self.max_minutes:g} min)" if self.max_minutes else ""
            log.info("%.2f s/step: about %s remaining%s", seconds, self._remaining(seconds), limit)

    def _remaining(self, seconds_per_step: float) -> str:
        return format_duration(seconds_per_step * (len(self.steps) - self._done) / 60)

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
        images_per_second = scalars["perf/images_per_second"]
        seconds = 2 * self.batch_size / images_per_second
        speed = f"{seconds:.3g} s/step, {images_per_second:.1f} images/s"
        self._bar.set_postfix_str(f"{speed}, loss: {losses}", refresh=False)
        now = time.monotonic()
        if self._bar.disable and now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            step, last = self.steps.start + self._done, self.steps.stop
            log.info("step %d/%d, %s, %s remaining, loss: %s", step, last, speed, self._remaining(seconds), losses)


def format_duration(minutes: float) -> str:
    """A duration to read, e.g. "9 min" or "3.5 h"."""
    if minutes < 1:
        return "less than a minute"
    if minutes < 100:
        return f"{minutes:.0f} min"
    return f"{minutes / 60:.1f} h" if minutes < 48 * 60 else f"{minutes / 1440:.1f} days"
