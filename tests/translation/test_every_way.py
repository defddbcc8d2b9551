"""One image, translated in every way there is, is the same image to a level of 255."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from tests.tiny import TINY
from tests.translation.server.serving import difference, encoded, serving
from tests.translation.video.clips import images, make_clip
from unit.__main__ import main
from unit.domains import PerDomain
from unit.model.networks import build_autoencoders
from unit.translation.translator import Translator

SIZE = (52, 36)  # a multiple of the model's scale, as ONNX demands


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    Translator(build_autoencoders(TINY.model), TINY, PerDomain("sunny", "rainy"), 7, "cpu", "fp32").save(path)
    return path


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC)


def by_command(model: Path, photo: Image.Image, folder: Path, *options: str) -> Image.Image:
    photo.save(folder / "photo.png")
    command = ["translate", str(model), "--direction", "a2b", str(folder / "photo.png"), "--out", str(folder / "o.png")]
    assert main([*command, "--device", "cpu", "--precision", "fp32", *options]) == 0
    return Image.open(folder / "o.png")


def in_strips(model: Path, photo: Image.Image, folder: Path) -> Image.Image:
    return by_command(model, photo, folder, "--tile", "12")


def by_onnx(model: Path, photo: Image.Image, folder: Path) -> Image.Image:
    assert main(["export", str(model), "--direction", "a2b", "--out", str(folder / "o.onnx")]) == 0
    session = onnxruntime.InferenceSession(folder / "o.onnx")
    (out,) = session.run(None, {"images": np.asarray(photo)[None]})
    return Image.fromarray(out[0])


def by_server(model: Path, photo: Image.Image, folder: Path) -> Image.Image:
    with serving({"model": Translator.load(model, "cpu", "fp32")}) as client:
        return client.translate(encoded(photo, "PNG")).image


def as_video(model: Path, photo: Image.Image, folder: Path) -> Image.Image:
    """In FFV1, which loses nothing."""
    make_clip(folder / "photo.mkv", [np.asarray(photo)])
    command = ["translate", str(model), "--direction", "a2b", str(folder / "photo.mkv"), "--out", str(folder / "o.mkv")]
    assert main([*command, "--device", "cpu", "--precision", "fp32", "--quality", "100"]) == 0
    (frame,) = images(folder / "o.mkv")
    return Image.fromarray(frame)


@pytest.mark.parametrize("way", [by_command, in_strips, by_onnx, by_server, as_video])
def test_every_way_gives_the_image_that_python_gets(
    way: Callable[[Path, Image.Image, Path], Image.Image], model: Path, photo: Image.Image, tmp_path: Path
) -> None:
    expected = Translator.load(model, "cpu", "fp32")(photo, "a2b")
    assert difference(photo, expected) > 10, "it is not the input"
    assert difference(way(model, photo, tmp_path), expected) <= 1
