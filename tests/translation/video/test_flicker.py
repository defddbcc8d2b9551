"""The flicker of a video, measured and lowered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.translation.video.clips import Array, Copier, go, images, make_clip
from unit.translation.video.flicker import Deflicker, FlickerMeter, MotionEstimator, apply, follow, reduce


def pan(count: int = 12, step: int = 3, size: int = 96, seed: int = 0) -> list[Array]:
    """Return frames of a camera that moves right over a textured plane."""
    cells = np.random.default_rng(seed).integers(0, 256, (24, 60, 3), dtype=np.uint8)
    plane = np.asarray(Image.fromarray(cells).resize((600, 240), Image.Resampling.BICUBIC)) * 0.8 + 20
    plane = (plane + np.random.default_rng(seed).normal(0, 8, plane.shape)).round().clip(0, 255).astype(np.uint8)
    return [plane[40 : 40 + size, 20 + step * k : 20 + step * k + size] for k in range(count)]


def flicker(source: list[Array], output: list[Array]) -> float | None:
    meter, motion = FlickerMeter(), MotionEstimator(*reduce(source[0]).shape[:2])
    for x, y in zip(source, output, strict=True):
        small = reduce(x)
        meter.add(small, reduce(y), motion(small))
    return meter.flicker


def sharpness(frames: Array) -> float:
    """Return the mean variance of the Laplacian."""
    gray = frames.astype(float).mean(-1)
    laplacian = (
        gray[:, :-2, 1:-1] + gray[:, 2:, 1:-1] + gray[:, 1:-1, :-2] + gray[:, 1:-1, 2:] - 4 * gray[:, 1:-1, 1:-1]
    )
    return float(laplacian.var((1, 2)).mean())


def lamps(frames: list[Array], seed: int = 1) -> list[Array]:
    """Let the light of each part of each frame change at random."""
    rng = np.random.default_rng(seed)
    flickering = []
    for frame in frames:
        light = Image.fromarray(rng.uniform(-40, 40, (6, 6)).astype(np.float32)).resize(frame.shape[1::-1])
        flickering.append((frame * 0.6 + 50 + np.asarray(light)[..., None]).round().clip(0, 255).astype(np.uint8))
    return flickering


def test_motion_is_found() -> None:
    frames = [reduce(frame) for frame in pan()]
    estimate = MotionEstimator(96, 96)
    assert estimate(frames[0]) is None
    for frame in frames[1:]:
        motion = estimate(frame)
        assert motion is not None
        assert (motion[:, 8:-8, 8:-16] == np.array([0, 3])[:, None, None]).mean() > 0.95


def test_following_the_motion_gives_the_next_frame() -> None:
    first, second = pan(2)
    motion = np.zeros((2, 96, 96), np.intp)
    motion[1] = 3
    assert (follow(first, motion)[:, :-3] == second[:, :-3]).all()


def test_an_output_that_moves_as_its_input_does_not_flicker() -> None:
    frames = pan()
    assert flicker(frames, frames) == 1
    assert flicker(frames, [255 - frame for frame in frames]) == pytest.approx(1)
    assert flicker(frames, [frame // 2 for frame in frames]) == pytest.approx(0.5, abs=0.05)
    assert flicker(pan(step=0), pan(step=0)) is None  # nothing changes


def test_flicker_is_seen_though_the_camera_moves() -> None:
    frames = pan()
    steady, unsteady = (
        flicker(frames, [(f * 0.6 + 50).astype(np.uint8) for f in frames]),
        flicker(frames, lamps(frames)),
    )
    assert steady is not None
    assert unsteady is not None
    assert unsteady > 3 * steady


@pytest.mark.parametrize("size", [(64, 64), (300, 400), (1080, 1920)])
def test_large_frames_are_reduced(size: tuple[int, int]) -> None:
    frame = np.full((*size, 3), 200, np.uint8)
    small = reduce(frame)
    assert min(small.shape[:2]) < 256
    assert (small == 200).all()
    assert (apply(np.full_like(small, -7), frame) == 193).all()
    deep = reduce(frame.astype(np.uint16) * 257)
    assert deep == pytest.approx(small, abs=1e-3)


def test_deflickering_steadies_and_keeps_details(tmp_path: Path) -> None:
    class Lamps(Copier):
        def translate(self, images, source, seed=None, **_):  # type: ignore[no-untyped-def]
            import torch

            count = sum(self.batches)
            self.batches.append(len(images))
            made = flickering[count : count + len(images)]
            return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2) / 127.5 - 1

    frames = pan(16)
    flickering = lamps(frames)
    clip = make_clip(tmp_path / "in.mkv", frames)
    before = go(clip, tmp_path / "before.mkv", translator=Lamps(), quality=100)
    after = go(clip, tmp_path / "after.mkv", translator=Lamps(), quality=100, deflicker=True)
    assert before.flicker == pytest.approx(flicker(frames, flickering))
    assert before.flicker is not None
    assert after.flicker is not None
    assert after.flicker < 0.6 * before.flicker
    kept = sharpness(images(tmp_path / "after.mkv")) / sharpness(images(tmp_path / "before.mkv"))
    assert 0.95 < kept < 1.05
    drift = images(tmp_path / "after.mkv").mean() - images(tmp_path / "before.mkv").mean()
    assert abs(drift) < 8


def test_a_steady_output_and_a_cut_are_left_as_they_are() -> None:
    frames = [reduce(frame) for frame in pan()]
    deflicker, motion = Deflicker(), MotionEstimator(96, 96)
    for frame in frames:
        assert np.abs(deflicker(frame, frame, motion(frame))[8:-8, 8:-16]).mean() < 2
    other = 255 - np.zeros_like(frames[0])
    assert np.abs(deflicker(other, other, motion(other))).mean() < 8
