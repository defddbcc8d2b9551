"""ONNX Runtime gives torch's translations, and leaves to torch what its file does not compute."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tiny import TINY
from unit.domains import Domain, PerDomain
from unit.errors import ConfigError
from unit.model.networks import build_autoencoders
from unit.translation import onnx_backend
from unit.translation.onnx_backend import OnnxRuntimeTranslator, with_backend
from unit.translation.translator import Translator

A, B = Domain


@pytest.fixture
def translator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Translator:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.manual_seed(0)
    return Translator(build_autoencoders(TINY.model), TINY, PerDomain("a", "b"), 0, "cpu", "fp32")


def image(height: int, width: int, count: int = 1) -> Tensor:
    levels = torch.randint(0, 256, (count, 3, height, width), generator=torch.Generator().manual_seed(1))
    return levels / 127.5 - 1


class Session:
    """In place of ONNX Runtime's: counts its calls, and returns black images."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def run(self, _: None, inputs: dict[str, Any]) -> tuple[Any]:
        self.shapes.append(inputs["images"].shape)
        return (0 * inputs["images"],)


@pytest.mark.slow
def test_the_images_are_torchs_to_two_levels_and_the_file_is_kept(
    translator: Translator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = with_backend(translator, "onnx", A, 1)
    assert isinstance(fast, OnnxRuntimeTranslator)
    for x in (image(17, 29), image(64, 40, 3), image(1, 1)):
        difference = (fast.translate(x, A) - translator.translate(x, A)).abs()
        assert difference.max() <= 2 / 127.5
    monkeypatch.setattr(onnx_backend, "to_onnx", None)
    again = with_backend(translator, "onnx", A, 1)
    assert torch.equal(again.translate(x, A), fast.translate(x, A))
    (file,) = (tmp_path / "cache").rglob("*.onnx")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(TypeError):  # a damaged file is exported again
        with_backend(translator, "onnx", A, 1)


def test_what_the_file_does_not_compute_is_left_to_torch(translator: Translator) -> None:
    session = Session()
    fast, x = OnnxRuntimeTranslator(translator, A, session), image(9, 14)
    for images, source, options in (
        (x, B, {}),
        (x, A, {"seed": 1}),
        (x, A, {"strength": 0.5}),
        (x + 0.5 / 127.5, A, {}),  # between two levels, as 16 bits may be
    ):
        assert torch.equal(fast.translate(images, source, **options), translator.translate(images, source, **options))
    fast.tile = 4
    fast.translate(x, A)
    assert not session.shapes
    fast.tile = "auto"
    assert torch.equal(fast.translate(x, A), torch.full_like(x, -1))
    assert session.shapes == [(1, 12, 16, 3)]


def test_auto_is_torch_unless_the_images_are_many(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_backend, "_session", lambda translator, source: Session())
    assert with_backend(translator, "auto", A, 999) is translator
    assert with_backend(translator, "torch", A, 5000) is translator
    assert isinstance(with_backend(translator, "auto", A, 1000), OnnxRuntimeTranslator)
    translator.precision = "bf16"
    assert with_backend(translator, "auto", A, 1000) is translator
    with pytest.raises(ConfigError, match="add --device cpu --precision fp32"):
        with_backend(translator, "onnx", A, 1)


def test_without_the_package(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert with_backend(translator, "auto", A, 1000) is translator
    with pytest.raises(ConfigError, match="pip install onnx onnxruntime onnxscript"):
        with_backend(translator, "onnx", A, 1)
