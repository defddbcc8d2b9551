"""The model card: what it says, what it asks, and that the Hub reads it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from tests.tiny import TINY
from unit.config import Config
from unit.domains import PerDomain
from unit.evaluation.card import Card, model_card, open_questions
from unit.evaluation.metric_table import GROUPS, NAMES, Metrics
from unit.model.networks import build_autoencoders
from unit.translation.provenance.marks import weights_sha256
from unit.translation.translator import Translator


def translator(names: tuple[str, str] = ("sunny", "rainy"), **data: object) -> Translator:
    config = Config(data=replace(TINY.data, **data), model=TINY.model)  # type: ignore[arg-type]
    return Translator(build_autoencoders(TINY.model), config, PerDomain(*names), 1234, "cpu", "fp32")


def metrics() -> Metrics:
    group: dict[str, float | None] = dict.fromkeys(NAMES)
    group |= {"images": 7.0, "reference_images": 8.0}
    groups = {
        name: group | {"kid": 10.0 * k, "kid_low": 10.0 * k - 1, "kid_high": 10.0 * k + 1, "psnr": 20.0 + k}
        for k, name in enumerate(GROUPS, 1)
    }
    return dict.fromkeys(("a2b", "b2a"), groups)


def card(model: Translator, folder: Path, measured: Metrics | None = None, licence: str | None = None) -> str:
    return model_card(model, Card(folder, measured, "Lite0" if measured else None, licence))


def front(text: str) -> dict[str, Any]:
    values = yaml.safe_load(text.split("---\n")[1])
    assert isinstance(values, dict)
    return values


FOLDERS = {"a": "sunny", "b": "rainy"}


def test_it_names_domains_steps_counts_and_metrics_beside_identity(tmp_path: Path) -> None:
    counts = {"training_images": {"sunny": 4321, "rainy": 99}, "test_images": {"sunny": 7, "rainy": 8}}
    (tmp_path / "environment.json").write_text(json.dumps(counts))
    model = translator(**FOLDERS, licence="CC-BY-4.0", people="none")
    text = card(model, tmp_path, metrics())
    for words in ("sunny to rainy", "rainy to sunny", "1,234 steps", "| sunny | 4,321 | 7 |", "| rainy | 99 | 8 |"):
        assert words in text
    assert "| KID x 1000, Lite0 | lower | 10.0 | 20.0 | 30.0 |" in text
    assert "better than the input by 10.0" in text
    assert weights_sha256(model.networks.state_dict()) in text
    assert "Their licence or terms of use: CC-BY-4.0." in text
    assert "No people can be recognised" in text
    assert "faces" in text
    assert open_questions(model, None) == []


def test_the_hub_reads_its_front_matter(tmp_path: Path) -> None:
    text = card(translator(**FOLDERS), tmp_path, metrics(), "CC BY 4.0")
    data = ModelCard(text).data
    assert (data.license, data.pipeline_tag, data.model_name) == ("cc-by-4.0", "image-to-image", "sunny-rainy")
    assert [(result.task_name, result.metric_type, result.metric_value) for result in data.eval_results] == [
        *[("sunny to rainy", "kid", 10.0), ("sunny to rainy", "psnr", 21.0)],
        *[("rainy to sunny", "kid", 10.0), ("rainy to sunny", "psnr", 21.0)],
    ]


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        (None, {"license": "unknown"}),
        ("MIT", {"license": "mit"}),
        ("by agreement", {"license": "other", "license_name": "by agreement"}),
    ],
)
def test_licences_have_the_names_of_the_hub(tmp_path: Path, licence: str | None, expected: dict[str, str]) -> None:
    values = front(card(translator(**FOLDERS, licence=licence), tmp_path))
    assert {key: value for key, value in values.items() if key.startswith("license")} == expected
    assert (
        front(card(translator(**FOLDERS, licence=licence), tmp_path, licence="Apache 2.0"))["license"] == "apache-2.0"
    )


def test_what_is_unknown_is_asked_in_the_card_and_beside_it(tmp_path: Path) -> None:
    model = translator(**FOLDERS)
    text = card(model, tmp_path)
    assert "say here where the photos come from" in text
    assert "don't use the model on people" in text
    assert "| sunny | unknown | unknown |" in text
    assert "Not measured" in text
    assert "model-index" not in text
    assert len(open_questions(model, None)) == 3
    assert len(open_questions(model, "MIT")) == 2
    assert open_questions(translator(**FOLDERS, people="consented", licence="MIT"), None) == []


def test_the_streets_have_no_people(tmp_path: Path) -> None:
    text = card(translator(), tmp_path)
    assert "no photos, no people" in text
    assert "People in them?" not in text
    assert open_questions(translator(), "MIT") == []


def test_names_are_text_and_not_markup(tmp_path: Path) -> None:
    text = card(translator(("<b>x|y</b>", "[link](http://x)"), **FOLDERS, licence="a: *b*"), tmp_path, metrics())
    body = "".join(text.split("---\n", 2)[2].split("```")[::2])  # without code
    assert "<b>" not in body
    assert "[link]" not in body
    assert r"a: \*b\*" in body
    assert front(text)["license_name"] == "a: *b*"
