"""An exported file translates in ONNX Runtime as the model does, for any batch and size; a wrong one is not written."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from tests.tiny import tiny
from unit.__main__ import main
from unit.domains import Domain, PerDomain
from unit.model.networks import build_autoencoders
from unit.translation import onnx_export
from unit.translation.onnx_export import OnnxTranslator
from unit.translation.translator import Translator


def save(folder: Path, **model: object) -> Translator:
    config = tiny(model={"initialization": "kaiming", **model})
    translator = Translator(build_autoencoders(config.model), config, PerDomain("sunny", "rainy"), 7, "cpu", "fp32")
    translator.save(folder / "model.safetensors")
    return translator


def export(folder: Path, *options: str) -> int:
    arguments = ["--direction", "sunny2rainy", "--out", str(folder / "rainy.onnx"), *options]
    return main(["export", str(folder / "model.safetensors"), *arguments])


def run(file: Path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    (translations,) = session.run(None, {"images": images})
    return translations


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--half",)])
@pytest.mark.parametrize(
    "model",
    [
        {"normalization": "instance", "downsampling": "strided", "upsampling": "nearest"},
        {"normalization": "group", "downsampling": "blurred", "upsampling": "bilinear"},
        {"normalization": "group", "downsampling": "strided", "upsampling": "transposed", "downsamples": 3},
    ],
)
def test_a_file_translates_as_the_model_does(
    tmp_path: Path, model: dict[str, object], options: tuple[str, ...]
) -> None:
    translator = save(tmp_path, **model)
    assert export(tmp_path, *options) == 0
    photo = Image.fromarray(
        np.tile(np.arange(0, 240, 2, dtype=np.uint8)[:, None, None], (1, 72, 3)) + np.arange(3, dtype=np.uint8)
    )
    images = np.stack([np.asarray(photo), np.asarray(photo)[::-1]])
    expected = [np.asarray(translator(Image.fromarray(image), "a2b")) for image in images]
    difference = np.abs(run(tmp_path / "rainy.onnx", images).astype(int) - np.stack(expected))
    assert difference.max() <= (2 if options else 1)


@pytest.mark.parametrize("licence", [None, "CC-BY-4.0"])
def test_the_metadata_are_those_of_other_outputs_and_the_licence(tmp_path: Path, licence: str | None) -> None:
    translator = save(tmp_path)
    translator.config = replace(translator.config, data=replace(translator.config.data, licence=licence))
    metadata = onnx_export._metadata(translator, Domain.B)
    assert metadata.get("licence") == licence
    assert metadata["weights_sha256"] == translator.provenance(Domain.B).model
    assert (metadata["source"], metadata["target"], metadata["direction"]) == ("rainy", "sunny", "b2a")


@pytest.mark.slow
def test_half_the_size_and_within_2_levels_whatever_the_weights(tmp_path: Path) -> None:
    save(tmp_path, channels=32, residual_blocks=4, normalization="instance")
    assert export(tmp_path) == 0
    size = (tmp_path / "rainy.onnx").stat().st_size
    assert export(tmp_path, "--half") == 0
    onnx.checker.check_model(onnx.load(tmp_path / "rainy.onnx"))
    assert (tmp_path / "rainy.onnx").stat().st_size < 0.55 * size


@pytest.mark.slow
def test_a_file_says_what_it_is(tmp_path: Path) -> None:
    translator = save(tmp_path)
    assert export(tmp_path) == 0
    weights = b"".join(w.contiguous().numpy().tobytes() for _, w in sorted(translator.networks.state_dict().items()))
    model = onnx.load(tmp_path / "rainy.onnx")
    onnx.checker.check_model(model)
    assert {entry.key: entry.value for entry in model.metadata_props} == {
        "source": "sunny",
        "target": "rainy",
        "direction": "a2b",
        "step": "7",
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }


@pytest.mark.slow
def test_a_file_that_translates_otherwise_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path)
    forward = OnnxTranslator.forward
    exporting = torch.compiler.is_exporting

    def inverted(self: OnnxTranslator, images: torch.Tensor) -> torch.Tensor:
        return 255 - forward(self, images) if exporting() else forward(self, images)

    monkeypatch.setattr(onnx_export.OnnxTranslator, "forward", inverted)
    assert export(tmp_path) == 1
    assert "levels of 255 from torch's" in capsys.readouterr().err
    assert not (tmp_path / "rainy.onnx").exists()


def test_without_the_packages_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path)
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert export(tmp_path) == 2
    assert capsys.readouterr().err == (
        "error: the package onnx is not installed; pip install onnx onnxruntime onnxscript\n"
    )
    assert not (tmp_path / "rainy.onnx").exists()
