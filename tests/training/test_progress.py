import logging
import time
from contextlib import closing

import pytest
import torch

from unit.training.progress import Progress, format_duration

CPU = torch.device("cpu")


def test_rates_count_images_of_both_domains_and_the_time_spent_waiting() -> None:
    with closing(Progress(range(3), 4, None, CPU)) as progress:
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
    with closing(Progress(range(100, 300), 2, 5.0, CPU)) as progress:
        for _ in range(100):
            now += 1.0
            progress.step_done()
            progress.show({"loss/generator_total": 1.25} | progress.rates())
    estimate, *lines = [record.getMessage() for record in caplog.records if "step" in record.getMessage()]
    assert estimate.startswith("1.00 s/step: about 3 min remaining")
    assert "after 5 min" in estimate
    assert len(lines) == 3  # one in 30 seconds
    assert lines[-1] == "step 190/300, 1 s/step, 4.0 images/s, 2 min remaining, loss: generator 1.25"


@pytest.mark.parametrize(
    ("minutes", "words"), [(0.5, "less than a minute"), (7, "7 min"), (150, "2.5 h"), (3 * 1440, "3.0 days")]
)
def test_durations_to_read(minutes: float, words: str) -> None:
    assert format_duration(minutes) == words
