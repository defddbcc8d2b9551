"""Of two ways to translate large images, the one with the lower KID is chosen, for each direction."""

from __future__ import annotations

import pytest
from PIL import Image

from tests.tiny import TINY
from unit.data.datasets import HeldOut
from unit.domains import Domain, PerDomain
from unit.evaluation.detail_choice import choose_detail
from unit.evaluation.evaluate import Evaluator
from unit.evaluation.metric_table import Metrics
from unit.image_source import ImageSource
from unit.model.networks import build_autoencoders
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
