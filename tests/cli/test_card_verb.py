"""``card`` writes README.md beside the model, measures where it can, and replaces nothing unasked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.test_verbs import model, run
from unit.translation.translator import Translator

__all__ = ["model"]  # a fixture


def test_a_card_is_written_beside_the_model_with_metrics(
    model: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The model is of the streets, whose held-out images can always be drawn."""
    readme = model.with_name("README.md")
    status, out, _ = run(capsys, "card", model, "--licence", "MIT", "--device", "cpu")
    assert (status, out) == (0, f"{readme}\n")
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("---\nlicense: mit\n")
    assert "identity" in text
    assert "| PSNR, dB | higher |" in text
    assert "answer before you publish" not in caplog.text
    readme.write_text("mine")
    assert run(capsys, "card", model, "--licence", "MIT")[0] == 2
    assert readme.read_text() == "mine"
    readme.unlink()


def test_a_model_that_has_left_its_run_is_measured_on_given_folders(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    translator = Translator.load(model, "cpu")
    data = replace(translator.config.data, a="/nowhere/sunny", b="/nowhere/rainy")
    translator.config = replace(translator.config, data=data)
    alone, out = tmp_path / "alone.safetensors", tmp_path / "card.md"
    translator.save(alone)
    assert run(capsys, "card", alone, "--out", out, "--device", "cpu")[0] == 0
    assert "the card has no metrics" in caplog.text
    assert "where do the photos come from" in caplog.text
    assert "Not measured" in out.read_text(encoding="utf-8")
    for folder in ("a", "b"):
        for k in range(3):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.effect_noise((24, 24), 50 + 9 * k).convert("RGB").save(tmp_path / folder / f"{k}.png")
    folders = ["--a", tmp_path / "a", "--b", tmp_path / "b"]
    assert run(capsys, "card", alone, *folders, "--out", out, "--overwrite", "--device", "cpu")[0] == 0
    assert "3 images vs. 3 real" in out.read_text(encoding="utf-8")
    assert run(capsys, "card", alone, "--a", tmp_path / "a", "--out", tmp_path / "x.md")[0] == 2
