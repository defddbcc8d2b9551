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

    Args:
        steps: those from here to `train.steps`.
        batch_size: a domain's images per step on all ranks.
        deadline: when `train.max_minutes` ends the run, by `time.monotonic`; infinity: never.
    """

    def __init__(
        self, steps: range, batch_size: int, deadline: float, device: torch.device, visible: bool = True
    ) -> None:
        self.steps, self.batch_size, self.deadline, self.device = steps, batch_size, deadline, device
        self._bar: tqdm[Any] = tqdm(
            total=steps.stop,
            initial=steps.start,
            unit="step",
            disable=not (visible and sys.stderr.isatty()),
            dynamic_ncols=True,
            bar_format="{n_fmt}/{desc} {bar} {elapsed}{postfix}",  # which fits 80 columns
        )
        self._speed, self._last_step, self._early, self._left = "", steps.stop, False, 0.0
        self._done, self._last_line = 0, time.monotonic()
        self._timed_from = self._last_line
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
        seconds_per_step = self._estimate_end()
        self._set_bar_text()
        self._bar.update()
        if self._done == _ESTIMATE_AFTER:
            end = f", to about step {self._last_step} of {self.steps.stop} (train.max_minutes)" if self._early else ""
            log.info("%.2f s/step: about %s remaining%s", seconds_per_step, format_duration(self._left / 60), end)

    def _estimate_end(self) -> float:
        """Estimate the last step and the seconds left until then; return the seconds per step.

        Steps or time end the run, whichever comes first. The speed is the mean since the first step, which is slow, and
        counts the pauses for samples, checkpoints and metrics, which will recur.
        """
        now, step = time.monotonic(), self.steps.start + self._done
        seconds_per_step = max((now - self._timed_from) / max(self._done - 1, 1), 1e-9)
        if self._done == 1:
            self._timed_from = now
        self._left = min((self.steps.stop - step) * seconds_per_step, max(0.0, self.deadline - now))
        self._last_step = step + round(self._left / seconds_per_step)
        self._early = self._last_step < self.steps.stop
        return seconds_per_step

    def _set_bar_text(self) -> None:
        """Replace tqdm's own estimate, which knows no deadline and jumps after each pause."""
        self._bar.total = self._last_step
        self._bar.set_description_str(f"{'~' * self._early}{self._last_step}", refresh=False)
        self._bar.set_postfix_str(f"{tqdm.format_interval(self._left)} to go{self._speed}", refresh=False)

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
        losses = {name: f"{loss:.3g}" for name, loss in totals.items() if loss is not None}
        images_per_second = scalars["perf/images_per_second"]
        seconds = f"{2 * self.batch_size / images_per_second:.3g} s/step"
        self._speed = f", {seconds}, loss " + " ".join(f"{name[0].upper()} {loss}" for name, loss in losses.items())
        self._set_bar_text()
        now = time.monotonic()
        if self._bar.disable and now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            place = f"step {self.steps.start + self._done}/{'~' * self._early}{self._last_step}"
            speed, left = f"{seconds}, {images_per_second:.1f} images/s", format_duration(self._left / 60)
            words = " ".join(f"{name} {loss}" for name, loss in losses.items())
            log.info("%s, %s, %s remaining, loss: %s", place, speed, left, words)


def format_duration(minutes: float) -> str:
    """A duration to read, e.g. "9 min" or "3.5 h"."""
    if minutes < 1:
        return "less than a minute"
    if minutes < 100:
        return f"{minutes:.0f} min"
    return f"{minutes / 60:.1f} h" if minutes < 48 * 60 else f"{minutes / 1440:.1f} days"
