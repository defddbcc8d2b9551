"""Of two ways to translate large images, the one with the lower KID is chosen, for each direction."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tiny import TINY, tiny
from unit.data.datasets import HeldOut
from unit.domains import Domain, PerDomain
from unit.evaluation.detail_choice import choose_detail
from unit.evaluation.evaluate import Evaluator
from unit.evaluation.metric_table import Metrics
from unit.image_source import ImageSource
from unit.model.networks import build_autoencoders
from unit.training.loop import train
from unit.translation.model_file import read_best_detail
from unit.translation.translator import Translator


class Plain(ImageSource):
    def __init__(self, side: int) -> None:
        self.side = side

    def __len__(self) -> int:
        return 2

    def image(self, index: int) -> Image.Image:
        return Image.new("RGB", (self.side, self.side + 1))

    def name(self, index: int) -> str:
        return str(index)


def choose(
    kids: dict[str, tuple[float | None, float | None]], sides: PerDomain[int], monkeypatch: pytest.MonkeyPatch
) -> tuple[PerDomain[str], Metrics, list[str]]:
    """Choose by these KIDs of each way, in both directions."""
    calls = []

    def metrics(self: Evaluator, translator: Translator) -> Metrics:
        calls.append(translator.detail)
        return {
            i.direction: {"translated": {"kid": kid}} for i, kid in zip(Domain, kids[translator.detail], strict=True)
        }

    monkeypatch.setattr(Evaluator, "metrics", metrics)
    translator = Translator(build_autoencoders(TINY.model), TINY, PerDomain("a", "b"), 0, "cpu", "fp32")
    test = HeldOut(sides.map(Plain), paired=False)
    best, chosen = choose_detail(Evaluator(test, TINY.data, native=True), translator)
    assert translator.detail == "auto"
    return best, chosen, calls


def test_the_lower_kid_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    kids = {"native": (300.0, 100.0), "guided": (200.0, 150.0)}
    best, chosen, _ = choose(kids, PerDomain(60, 60), monkeypatch)
    assert best == PerDomain("guided", "native")
    assert [chosen[i.direction]["translated"]["kid"] for i in Domain] == [200.0, 100.0]


def test_without_kid_it_is_native(monkeypatch: pytest.MonkeyPatch) -> None:
    kids = {"native": (None, None), "guided": (None, None)}
    assert choose(kids, PerDomain(60, 60), monkeypatch)[0] == PerDomain("native", "native")


def test_images_of_the_trained_size_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    kids = {"native": (300.0, 100.0), "guided": (200.0, 50.0)}
    best, _, calls = choose(kids, PerDomain(20, 20), monkeypatch)
    assert best == PerDomain("native", "native")
    assert calls == ["native"]
    assert choose(kids, PerDomain(20, 60), monkeypatch)[0] == PerDomain("guided", "guided")


@pytest.fixture
def photos(tmp_path: Path) -> dict[str, str]:
    for name in ("a", "b", "test_a", "test_b"):
        (tmp_path / name).mkdir()
        for k in range(4):
            pixels = np.random.default_rng(k).integers(0, 128 if name[-1] == "a" else 256, (10, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((48, 40)).save(tmp_path / name / f"{k}.png")
    return {name: str(tmp_path / name) for name in ("a", "b", "test_a", "test_b")}


@pytest.mark.slow
def test_images_too_large_to_measure_in_time_are_left_to_evaluate(
    photos: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unit.evaluation.evaluate._SECONDS", 0)
    result = train(tiny(data=photos, train={"steps": 2}), tmp_path / "run")
    assert "too large to measure within minutes" in caplog.text
    assert result.metrics  # at the training size
    assert read_best_detail(tmp_path / "run") == PerDomain("native", "native")


@pytest.mark.slow
def test_training_ends_with_the_choice_in_the_model_file(
    photos: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    train(tiny(data=photos, train={"steps": 2}), tmp_path / "run")
    said = [record.args for record in caplog.records if "KID of full-size" in record.msg]
    assert [args[0] for args in said] == ["a2b", "b2a"]
    for i, (_, native, guided, choice) in zip(Domain, said, strict=True):
        assert native != guided
        assert choice == read_best_detail(tmp_path / "run")[i] == ("guided" if guided < native else "native")
