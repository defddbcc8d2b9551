"""Whole files through the network: all frames, at the depth of the file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.tiny import TINY
from unit.domains import Domain, PerDomain
from unit.images import DecodedImage, Frame, decode_bytes, encode, is_marked, read_image_file
from unit.model.networks import build_autoencoders
from unit.translation.files.image_files import Settings, translate_images
from unit.translation.files.jobs import Job, Outcome
from unit.translation.frames import finish, scale, suited, translate_image
from unit.translation.translator import Translator


@pytest.fixture(scope="module")
def translator() -> Translator:
    torch.manual_seed(0)
    return Translator(build_autoencoders(TINY.model), TINY, PerDomain("sunny", "rainy"), 0, "cpu", "fp32")


class Inverter(Translator):
    """Returns negatives, and records the shapes."""

    def __init__(self) -> None:
        super().__init__(build_autoencoders(TINY.model), TINY, PerDomain("sunny", "rainy"), 0, "cpu", "bf16")
        self.shapes: list[tuple[int, ...]] = []
        self.precisions: list[str] = []

    def translate(self, images: Tensor, source: Domain, seed: int | None = None, *, strength: float = 1.0) -> Tensor:
        self.shapes.append(tuple(images.shape))
        self.precisions.append(self.precision)
        return -images + (0 if seed is None else 0.02 * seed)


def noise(width: int = 20, height: int = 12, seed: int = 0, high: int = 256) -> np.ndarray:
    kind = np.uint8 if high == 256 else np.uint16
    return np.random.default_rng(seed).integers(0, high, (height, width, 3), dtype=kind)


def animation(path: Path, count: int, **options: Any) -> Path:
    frames = [Image.fromarray(noise(seed=k)) for k in range(count)]
    frames[0].save(
        path, save_all=True, append_images=frames[1:], duration=[20 * k + 20 for k in range(count)], **options
    )
    return path


def run(translator: Translator, path: Path, out: Path, samples: int | None = None, **settings: Any) -> Outcome:
    outputs = (out,) if samples is None else tuple(out.with_stem(f"{out.stem}-{k + 1}") for k in range(samples))
    (outcome,) = translate_images(translator, [Job(path, outputs)], Settings(Domain.A, samples=samples, **settings))
    assert outcome.status == "done", outcome.reason
    return outcome


def test_16_bits_are_translated_as_8_bits_are_but_finer(translator: Translator) -> None:
    eight = noise()
    coarse = translate_image(translator, DecodedImage("PNG", (Frame(Image.fromarray(eight)),)), Domain.A)
    fine = translate_image(translator, DecodedImage("PNG", (Frame(eight.astype(np.uint16) * 257),)), Domain.A)
    a, b = np.asarray(fine.frames[0].colors), np.asarray(coarse.frames[0].colors).astype(int)
    assert a.dtype == np.uint16
    assert np.abs(a / 257 - b).max() <= 0.51
    assert len(np.unique(a)) > 600


@pytest.mark.parametrize("size", [None, 8])
def test_an_unchanged_16_bit_file_comes_out_exactly(tmp_path: Path, size: int | None) -> None:
    """Not through 8 bits, nor through bf16, which has 8 significant ones."""
    values = noise(high=65536)
    if size:
        values[:] = values[0, 0]  # nothing that scaling could blur
    path = tmp_path / "x.png"
    path.write_bytes(encode(DecodedImage("PNG", (Frame(values),)), "PNG")[0])
    inverter = Inverter()
    outcome = run(inverter, path, tmp_path / "y.tif", size=size)
    assert inverter.precision == "bf16"
    after = np.asarray(read_image_file(tmp_path / "y.tif").frames[0].colors)
    assert np.array_equal(65535 - after.astype(int), values)
    assert (outcome.size, outcome.lost) == ((20, 12), ())


def test_16_bits_take_fp32_and_8_bits_the_translator_itself() -> None:
    inverter = Inverter()
    assert suited(inverter, deep=False) is inverter
    precise = suited(inverter, deep=True)
    assert (precise.precision, inverter.precision) == ("fp32", "bf16")
    assert precise.networks is inverter.networks


def test_scaling_16_bits_is_that_of_8_bits() -> None:
    values = noise(40, 24)
    eight = scale(Frame(Image.fromarray(values)), 12)
    sixteen = scale(Frame(values.astype(np.uint16) * 257), 12)
    assert np.abs(np.asarray(sixteen) / 257 - np.asarray(eight)).max() <= 1
    tensor = torch.rand(3, 12, 20) - 0.5  # Pillow clips 8 bits between its two passes
    fine = finish(tensor, Frame(np.zeros((24, 40, 3), np.uint16)))
    coarse = finish(tensor, Frame(Image.new("RGB", (40, 24))))
    assert np.abs(np.asarray(fine.colors) / 257 - np.asarray(coarse.colors)).max() <= 2


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_every_frame_and_sample_of_an_animation_is_translated(tmp_path: Path, batch_size: int) -> None:
    path = animation(tmp_path / "x.png", 4, loop=3)
    inverter = Inverter()
    outcome = run(inverter, path, tmp_path / "y.png", samples=2, seed=1, batch_size=batch_size)
    assert sum(shape[0] for shape in inverter.shapes) == 8
    assert max(shape[0] for shape in inverter.shapes) == min(batch_size, 4)
    assert outcome.lost == ()
    for number, output in enumerate(outcome.outputs):
        image = read_image_file(output)
        assert is_marked(output)
        assert (image.plays, [frame.duration for frame in image.frames]) == (3, [20, 40, 60, 80])
        for k, frame in enumerate(image.frames):
            expected = np.clip(255 - noise(seed=k) + 127.5 * 0.02 * (number + 1), 0, 255)
            assert np.abs(np.asarray(frame.colors) - expected).max() <= 0.51


def test_animations_and_stills_side_by_side(tmp_path: Path) -> None:
    jobs = []
    for k in range(6):
        path = tmp_path / f"{k}.png"
        if k in (1, 2, 5):
            animation(path, 3)
        else:
            Image.fromarray(noise(seed=k)).save(path)
        jobs.append(Job(path, (tmp_path / f"out/{k}.png",)))
    outcomes = list(translate_images(Inverter(), jobs, Settings(Domain.A, batch_size=4)))
    assert [outcome.status for outcome in outcomes] == ["done"] * 6
    for k, job in enumerate(jobs):
        before, after = read_image_file(job.input), read_image_file(job.outputs[0])
        assert len(after.frames) == (3 if k in (1, 2, 5) else 1)
        for a, b in zip(before.frames, after.frames, strict=True):
            assert np.array_equal(255 - np.asarray(a.colors), np.asarray(b.colors))


def test_alpha_is_kept_and_colours_alone_are_translated(tmp_path: Path) -> None:
    rgba = np.dstack([noise(), np.random.default_rng(3).integers(1, 256, (12, 20), dtype=np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "x.png")
    run(Inverter(), tmp_path / "x.png", tmp_path / "y.png")
    after = np.asarray(Image.open(tmp_path / "y.png"))
    assert np.array_equal(after[..., 3], rgba[..., 3])
    assert np.array_equal(after[..., :3], 255 - rgba[..., :3])


def test_gray_stays_gray_only_on_request_and_only_what_is_gray(tmp_path: Path) -> None:
    Image.fromarray(noise()[..., 0]).save(tmp_path / "gray.png")
    Image.fromarray(noise()).save(tmp_path / "color.png")
    for name, keep_gray, mode in (("gray", True, "L"), ("gray", False, "RGB"), ("color", True, "RGB")):
        run(Inverter(), tmp_path / f"{name}.png", tmp_path / "y.png", keep_gray=keep_gray, overwrite=True)
        with Image.open(tmp_path / "y.png") as image:
            assert image.mode == mode
            before = Image.open(tmp_path / f"{name}.png").convert(mode)
            assert np.array_equal(image, 255 - np.asarray(before))


def test_what_is_not_kept_is_in_the_outcome(tmp_path: Path) -> None:
    animation(tmp_path / "x.png", 3)
    assert run(Inverter(), tmp_path / "x.png", tmp_path / "y.jpg").lost == ("frames after the first",)


def test_a_translated_file_is_the_same_in_memory(translator: Translator, tmp_path: Path) -> None:
    Image.fromarray(noise()).save(tmp_path / "x.png")
    run(translator, tmp_path / "x.png", tmp_path / "y.png")
    image = decode_bytes((tmp_path / "x.png").read_bytes(), "x")
    content, _ = encode(translate_image(translator, image, Domain.A), "PNG", mark=translator.provenance(Domain.A))
    assert content == (tmp_path / "y.png").read_bytes()
    assert np.array_equal(Image.open(io.BytesIO(content)), translator(Image.fromarray(noise()), "a2b"))
