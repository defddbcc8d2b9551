import io
import logging
import math
import sys
import time
from contextlib import closing

import pytest
import torch

from unit.training.progress import Progress, format_duration

CPU = torch.device("cpu")


def test_rates_count_images_of_both_domains_and_the_time_spent_waiting() -> None:
    with closing(Progress(range(3), 4, math.inf, CPU)) as progress:
        started = time.monotonic()
        for _ in range(3):
            with progress.waiting():
                time.sleep(0.05)
            time.sleep(0.05)
            progress.step_done()
        rates, seconds = progress.rates(), time.monotonic() - started
    assert rates["perf/images_per_second"] == pytest.approx(2 * 4 * 3 / seconds, rel=0.1)
    assert 0.3 < rates["perf/data_wait_fraction"] < 0.7


def test_without_a_terminal_there_are_lines_and_not_too_many(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with closing(Progress(range(100, 300), 2, math.inf, CPU)) as progress:
        for _ in range(100):
            now += 1.0
            progress.step_done()
            progress.show({"loss/generator_total": 1.25} | progress.rates())
    estimate, *lines = [record.getMessage() for record in caplog.records if "step" in record.getMessage()]
    assert estimate == "1.00 s/step: about 3 min remaining"
    assert len(lines) == 3  # one in 30 seconds
    assert lines[-1] == "step 190/300, 1 s/step, 4.0 images/s, 2 min remaining, loss: generator 1.25"


def test_the_end_is_that_of_the_steps_or_of_the_time_whichever_comes_first(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with closing(Progress(range(100, 30_000), 2, 600.0, CPU)) as progress:
        for step in range(101, 401):
            now += 1.0
            progress.step_done()
            progress.show({"loss/generator_total": 1.25} | progress.rates())
            now += 10.0 * (step % 100 == 0)  # sample grids
    estimate, *lines = [record.getMessage() for record in caplog.records if "step" in record.getMessage()]
    assert estimate == "1.00 s/step: about 10 min remaining, to about step 700 of 30000 (train.max_minutes)"
    assert lines[-1].startswith("step 380/~660, 1 s/step, ")  # 280 steps and 2 pauses took 300 s; 300 s are left
    assert "5 min remaining" in lines[-1]


@pytest.mark.parametrize("columns", [80, 120])
def test_the_bar_shows_the_end_and_fits_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    now, terminal = 0.0, io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(time, "monotonic", lambda: now)
    losses = {"loss/generator_total": 12.3456, "loss/discriminator_total": 0.123456}
    with closing(Progress(range(29_000), 2, 540.0, CPU)) as progress:
        for _ in range(250):
            now += 0.5
            progress.step_done()
        now += 60.0  # a pause
        progress.step_done()
        progress.show(losses | progress.rates())
    shown = terminal.getvalue().split("\r")
    assert max(map(len, shown)) <= columns
    assert "251/~732 " in shown[-1], shown[-1]
    assert "5:55 to go" in shown[-1], "540 s, of which 185 have gone"
    assert shown[-1].rstrip().endswith("loss G 12.3 D 0.123")


@pytest.mark.parametrize(
    ("minutes", "words"), [(0.5, "less than a minute"), (7, "7 min"), (150, "2.5 h"), (3 * 1440, "3.0 days")]
)
def test_durations_to_read(minutes: float, words: str) -> None:
    assert format_duration(minutes) == words
