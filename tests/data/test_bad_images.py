import logging
import os
import signal
import time

import pytest
import torch
from PIL import Image

from tests.tiny import batch_indices
from unit.config import DataConfig
from unit.data.bad_images import BadImages
from unit.data.batches import (
    TrainingImages,
    _ignore_signals,
    loader_failure,
    training_batches,
)
from unit.domains import Domain, PerDomain
from unit.errors import DataError, ImageError
from unit.image_source import ImageSource

SKIP = DataConfig(load_size=8, crop_size=8, flip=False, on_bad_image="skip")


class Gray(ImageSource):
    """`count` images, number k all of grey level k mod 250; those of `bad` can't be read."""

    def __init__(self, count: int, bad: set[int] = frozenset()) -> None:  # type: ignore[assignment]
        self.count, self.bad = count, bad

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"{index}.png"

    def image(self, index: int, short_side: int | None = None) -> Image.Image:
        if index in self.bad:
            raise ImageError(f"folder/{index}.png: damaged")
        return Image.new("RGB", (8, 8), (index % 250,) * 3)


def batches(
    sources: PerDomain[Gray], bad: BadImages, steps: range, config: DataConfig = SKIP, workers: int = 0
) -> list[PerDomain[torch.Tensor]]:
    images = TrainingImages(PerDomain(sources.a, sources.b), config, 0)
    return list(training_batches(images, bad, batch_indices(steps, 4), workers, torch.device("cpu")))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_is_replaced_and_nothing_else_changes(workers: int, caplog: pytest.LogCaptureFixture) -> None:
    good, one_bad = (PerDomain(Gray(200), Gray(200, bad)) for bad in (set(), {17}))
    bad = BadImages(PerDomain(200, 200))
    expected = batches(good, BadImages(PerDomain(200, 200)), range(100))
    got = batches(one_bad, bad, range(100), workers=workers)
    level_17 = 17 / 127.5 - 1
    changed = 0
    for before, now in zip(expected, got, strict=True):
        assert torch.equal(before.a, now.a)
        for image_before, image_now in zip(before.b, now.b, strict=True):
            was_bad = abs(float(image_before.mean()) - level_17) < 1e-4
            assert torch.equal(image_before, image_now) != was_bad
            changed += was_bad
    assert changed == 2  # 400 images are two epochs of 200
    assert len(bad) == 1
    assert caplog.text.count("folder/17.png: damaged; skipped, as 1 of the 200 images of domain b") == 1


def test_over_one_percent_bad_stops() -> None:
    bad = BadImages(PerDomain(200, 200))
    for index in range(2):
        bad.note(Domain.A, f"{index}.png", ImageError(f"{index}.png: damaged"))
    with pytest.raises(DataError, match=r"2\.png: damaged; 3 of the 200 images of domain a .* over 1%") as refused:
        bad.note(Domain.A, "2.png", ImageError("2.png: damaged"))
    assert refused.value.exit_status == 3


def test_the_domains_are_counted_apart_and_a_name_once() -> None:
    bad = BadImages(PerDomain(100, 100))
    for domain in (Domain.A, Domain.B, Domain.A):
        bad.note(domain, "x.png", ImageError("x.png: damaged"))
    assert len(bad) == 2


def test_a_folder_that_went_away_stops_at_once() -> None:
    gone = PerDomain(Gray(10_000, set(range(10_000))), Gray(10))
    with pytest.raises(ImageError, match="damaged"):
        batches(gone, BadImages(PerDomain(10_000, 10)), range(1))


def test_without_skip_the_first_bad_image_stops() -> None:
    with pytest.raises(ImageError, match=r"folder/3\.png: damaged"):
        batches(
            PerDomain(Gray(4, {3}), Gray(4)), BadImages(PerDomain(4, 4)), range(1), DataConfig(load_size=8, crop_size=8)
        )


def test_the_count_is_kept_by_a_run_that_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    first, second = BadImages(PerDomain(1000, 1000)), BadImages(PerDomain(1000, 1000))
    first.note(Domain.A, "x.png", ImageError("x.png: damaged"))
    second.load_state_dict(first.state_dict())
    caplog.clear()
    second.note(Domain.A, "x.png", ImageError("x.png: damaged"))
    assert len(second) == 1
    assert caplog.get_records("call") == []
    assert logging.getLogger("unit.data.bad_images").isEnabledFor(logging.WARNING)


def test_the_limit_holds_for_a_run_that_goes_on() -> None:
    first, second = BadImages(PerDomain(100, 100)), BadImages(PerDomain(100, 100))
    first.note(Domain.A, "x.png", ImageError("x.png: damaged"))
    with pytest.raises(DataError):
        first.note(Domain.A, "y.png", ImageError("y.png: damaged"))
    second.load_state_dict(first.state_dict())
    with pytest.raises(DataError):
        second.note(Domain.A, "x.png", ImageError("x.png: damaged"))


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        ("DataLoader worker (pid 7) is killed by signal: Killed. ", "probably out of memory"),
        ("DataLoader worker (pid(s) 7) exited unexpectedly", "probably out of memory"),
        ("DataLoader timed out after 300 seconds", "timed out after 5 minutes"),
        (
            "... killed by signal: Bus error. It is possible that dataloader's workers are out of shared memory.",
            "shm-size",
        ),
        ("Caught RuntimeError in DataLoader worker process 0.\nunable to allocate shared memory(shm)", "shm-size"),
        ("Caught RuntimeError in DataLoader worker process 0.\na mistake of ours", None),
        ("a mistake of ours", None),
    ],
)
def test_what_is_said_of_a_loader_process(error: str, advice: str | None) -> None:
    failure = loader_failure(RuntimeError(error))
    assert (failure is None) == (advice is None)
    assert advice is None or (advice in str(failure) and str(failure).isprintable())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_loader_process_outlives_sigterm_for_a_while_and_ends_as_if_all_was_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("unit.data.batches._GRACE_PERIOD", 1)
    child = os.fork()
    if child == 0:
        _ignore_signals(0)
        time.sleep(60)
        os._exit(1)
    time.sleep(0.3)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        os.kill(child, number)
    time.sleep(0.3)
    assert os.waitpid(child, os.WNOHANG) == (0, 0)
    assert os.waitpid(child, 0)[1] == 0
