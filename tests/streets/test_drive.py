"""A drive shows one world, ever nearer, the same in both weathers."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tests.translation.video.clips import images, times
from unit.__main__ import main
from unit.streets import DAY, NIGHT, Weather
from unit.streets.drive import SPEED, _drivable, _seen_after, drive
from unit.streets.layout import make_scene
from unit.streets.scene import NEAR, Scene

SEEDS = range(6)


def depths(street: Scene) -> list[float]:
    upright = [*street.trees, *street.lamps, *street.people, *street.furniture]
    return [*(item.z for item in upright), *(front.z1 for front in (*street.buildings, *street.hedges))]


@pytest.mark.parametrize("seed", SEEDS)
def test_driving_twice_is_driving_as_far(seed: int) -> None:
    street = _drivable(make_scene(seed, longer=60.0))
    once, twice = _seen_after(street, 30.0), _seen_after(_seen_after(street, 12.5), 17.5)
    assert depths(once) == pytest.approx(depths(twice))
    assert [car.z for car in once.cars] == pytest.approx([car.z for car in twice.cars])
    assert [patch[1] for patch in once.road.patches] == pytest.approx([patch[1] for patch in twice.road.patches])
    assert once.road.crossing == pytest.approx(twice.road.crossing)


@pytest.mark.parametrize("seed", SEEDS)
def test_all_comes_nearer_until_it_is_behind(seed: int) -> None:
    street = _drivable(make_scene(seed, longer=60.0))
    assert _seen_after(street, 0.0) == street
    later = _seen_after(street, 20.0)
    assert depths(later) == pytest.approx([z - 20.0 for z in depths(street) if z - 20.0 > NEAR])
    ahead = [car.z for car in street.cars if car.away and not car.parked]
    assert [car.z for car in later.cars if car.away and not car.parked] == ahead
    assert max(depths(_seen_after(street, 60.0))) > 60.0  # the street has not ended


@pytest.mark.parametrize("seed", SEEDS)
def test_nobody_is_run_over(seed: int) -> None:
    street = _drivable(make_scene(seed, longer=60.0))
    assert all(abs(person.x) > street.road.half for person in street.people)
    assert all(abs(car.x - street.camera.x) > 1.2 or (car.away and not car.parked) for car in street.cars)


def test_dashes_follow_each_other_without_a_jump() -> None:
    street = make_scene(3, longer=60.0)
    for metres in (0.0, 0.7, 4.9, 5.0, 33.3):
        assert (_seen_after(street, metres).road.first_dash + metres - 1.0) % 5.0 == pytest.approx(0, abs=1e-9)


def test_both_weathers_show_the_same_world() -> None:
    sunny, rainy = (
        np.stack([np.asarray(frame.convert("L"), float) for frame in drive(3, weather, 48, 2, 2)]) for weather in DAY
    )
    assert sunny.shape == (4, 48, 48)
    same = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(sunny, rainy, strict=True)]
    other = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(sunny, rainy[::-1], strict=True)]
    assert np.mean(same) > np.mean(other)
    again = np.stack([np.asarray(frame.convert("L"), float) for frame in drive(3, Weather.RAINY, 48, 2, 2)])
    assert (again == rainy).all()


def test_the_rate_does_not_change_the_speed() -> None:
    slow = list(drive(3, Weather.SUNNY, 16, 2, 2))
    fast = list(drive(3, Weather.SUNNY, 16, 2, 4))
    assert [frame.tobytes() for frame in fast[::2]] == [frame.tobytes() for frame in slow]
    assert SPEED > 0


@pytest.mark.parametrize(("flags", "weathers"), [([], DAY), (["--night"], NIGHT)])
def test_the_verb_writes_both_weathers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], weathers: tuple[Weather, Weather]
) -> None:
    command = ["streets", str(tmp_path / "drive"), "--drive", "1", "--size", "16", "--seed", "3", *flags]
    assert main(command) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'drive'}\n"
    for weather in weathers:
        path = tmp_path / "drive" / f"{weather}.mkv"
        expected = np.stack([np.asarray(frame) for frame in drive(3, weather, 16, 1, 24)])
        assert (images(path) == expected).all()
        assert float(times(path)[-1]) == pytest.approx(23 / 24, abs=1e-3)
    assert main(command) == 3
    assert "exists already" in capsys.readouterr().err


def test_the_verb_says_which_package_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    assert main(["streets", str(tmp_path / "drive"), "--drive", "1"]) == 2
    assert capsys.readouterr().err == "error: the package av is not installed, which videos need; pip install av\n"
    assert not (tmp_path / "drive").exists()
