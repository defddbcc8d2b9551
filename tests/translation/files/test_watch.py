"""Watching a folder: every image once, when it is complete, and no output."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unit.errors import DataError
from unit.images import write_image
from unit.translation.files import watch as watch_module
from unit.translation.files.jobs import Job, Outcome
from unit.translation.files.watch import Watcher, watch


def image(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8))


def put(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image(seed).save(path)
    return path


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def polls(tmp_path: Path) -> Callable[[float], list[str]]:
    """Let some time pass and look."""
    clock = Clock()
    watcher = Watcher(tmp_path, tmp_path / "out", clock)

    def poll(seconds: float) -> list[str]:
        clock.seconds += seconds
        return watcher.poll()

    return poll


def test_an_image_is_noticed_once_and_when_it_has_settled(tmp_path: Path, polls: Callable[[float], list[str]]) -> None:
    put(tmp_path / "sub/x.png")
    (tmp_path / "notes.txt").touch()
    put(tmp_path / "y.png").rename(tmp_path / ".hidden.png")
    assert [polls(1), polls(1), polls(1), polls(1), polls(9)] == [[], [], ["sub/x.png"], [], []]


def test_a_growing_image_is_left_alone(tmp_path: Path, polls: Callable[[float], list[str]]) -> None:
    content = put(tmp_path / "y.png").read_bytes()
    (tmp_path / "y.png").unlink()
    file = tmp_path / "x.png"
    for k in range(5):
        file.write_bytes(content[: k * 10])
        assert polls(1.9) == []
    file.write_bytes(content)
    assert polls(5) == []
    assert polls(2) == ["x.png"]
    assert polls(5) == []


def test_an_empty_image_is_waited_for(tmp_path: Path, polls: Callable[[float], list[str]]) -> None:
    (tmp_path / "x.png").touch()
    assert [polls(3), polls(3), polls(3)] == [[], [], []]
    put(tmp_path / "x.png")
    assert [polls(3), polls(3)] == [[], ["x.png"]]


@pytest.mark.skipif(not hasattr(watch_module.fcntl, "F_SETLEASE"), reason="only Linux tells who writes a file")
def test_an_open_image_is_left_alone_however_long_it_rests(tmp_path: Path, polls: Callable[[float], list[str]]) -> None:
    put(tmp_path / "x.png")
    with (tmp_path / "x.png").open("ab"):
        assert [polls(3), polls(3), polls(99)] == [[], [], []]
    assert polls(3) == ["x.png"]


def test_a_changed_or_returning_image_is_noticed_again(tmp_path: Path, polls: Callable[[float], list[str]]) -> None:
    file = put(tmp_path / "x.png")
    assert [polls(3), polls(3)] == [[], ["x.png"]]
    put(file, seed=1)
    os.utime(file, ns=(1, 1))
    assert [polls(3), polls(3), polls(3)] == [[], ["x.png"], []]
    file.unlink()
    assert polls(3) == []
    put(file, seed=1)
    os.utime(file, ns=(1, 1))
    assert [polls(3), polls(3)] == [[], ["x.png"]]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(Watcher.__init__, "__defaults__", (clock,))
    return clock


def watched(
    clock: Clock, folder: Path, out: Path, steps: Sequence[Callable[[], object]], samples: int | None = None
) -> list[Job]:
    """Return the jobs of a watch, in which these steps happen one after the other."""
    jobs: list[Job] = []

    def translate(planned: Sequence[Job]) -> Iterator[Outcome]:
        for job in planned:
            jobs.append(job)
            for output in job.outputs:
                write_image(image(9), output)
            yield Outcome(str(job.input), "done", job.outputs)

    pending = iter(steps)
    waits = 0

    def sleep(seconds: float) -> None:
        nonlocal waits
        waits += 1
        clock.seconds += seconds
        if waits % 5 == 0:
            step = next(pending, None)
            if step is None:
                raise KeyboardInterrupt
            step()

    with pytest.raises(KeyboardInterrupt):
        list(watch(folder, out, ".png", samples, translate, sleep))
    return jobs


@pytest.mark.parametrize("place", ["out", ".", "in/../out", "sub"])
def test_outputs_are_never_translated_wherever_they_lie(tmp_path: Path, clock: Clock, place: str) -> None:
    put(tmp_path / "x.jpg")
    (tmp_path / "in").mkdir()
    out = tmp_path / place
    jobs = watched(clock, tmp_path, out, [lambda: put(tmp_path / "a/y.jpg"), lambda: None, lambda: None])
    assert [job.input.relative_to(tmp_path).as_posix() for job in jobs] == ["x.jpg", "a/y.jpg"]
    assert [job.outputs for job in jobs] == [(out / "x.png",), (out / "a/y.png",)]


def test_outputs_of_an_earlier_watch_are_not_translated(tmp_path: Path, clock: Clock) -> None:
    put(tmp_path / "x.jpg")
    assert len(watched(clock, tmp_path, tmp_path, [])) == 1
    jobs = watched(clock, tmp_path, tmp_path, [lambda: put(tmp_path / "y.jpg")])
    assert {job.input.name for job in jobs} == {"x.jpg", "y.jpg"}


def test_a_name_that_is_taken_later_gets_a_longer_one(tmp_path: Path, clock: Clock) -> None:
    put(tmp_path / "in/x.jpg")
    jobs = watched(clock, tmp_path / "in", tmp_path / "out", [lambda: put(tmp_path / "in/x.png")])
    assert [job.outputs[0].name for job in jobs] == ["x.png", "x.png.png"]


def test_each_sample_is_an_output(tmp_path: Path, clock: Clock) -> None:
    put(tmp_path / "in/x.jpg")
    (job,) = watched(clock, tmp_path / "in", tmp_path / "in", [lambda: None], samples=2)
    assert [output.name for output in job.outputs] == ["x-1.png", "x-2.png"]


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        next(watch(tmp_path / "nowhere", tmp_path, ".png", None, lambda _: []))
