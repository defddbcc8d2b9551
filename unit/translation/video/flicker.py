"""How much a translated video flickers, and how to make it flicker less.

The motion is that of the input, found by FFmpeg's block matching (mestimate): each block of 8 x 8 pixels of a frame,
scaled to a short side of at most 255 pixels, is looked for in the frame before. Where the input moves, a steady output
moves along; whatever else changes from frame to frame is flicker.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from unit.translation.video.reading import Pixels, import_av

_SHORT_SIDE = 128
"""Frames are reduced by whole numbers to a short side from here to twice as much, if they are larger."""
_BLOCK, _RANGE = 8, 15
_MEMORY = 0.8
"""Share of the last steady frame in the next, where the input only moves: flicker is down to a fraction in 3 frames."""
_SAME = 40.0
"""Levels by which the input differs from itself moved along where that share falls to 1/e."""

Levels = npt.NDArray[np.float32]
"""(H, W, 3), 0 … 255"""
Motion = npt.NDArray[np.intp]
"""(2, H, W): rows and columns from each pixel to where it was in the frame before."""


def reduce(pixels: Pixels) -> Levels:
    """Return a frame (H, W, 3) as levels 0 … 255, averaged over squares of pixels if it is large."""
    factor = max(1, min(pixels.shape[:2]) // _SHORT_SIDE)
    height, width = (side // factor * factor for side in pixels.shape[:2])
    squares = pixels[:height, :width].reshape(height // factor, factor, width // factor, factor, 3)
    levels: Levels = squares.mean((1, 3), dtype=np.float32) * np.float32(255 / np.iinfo(pixels.dtype).max)
    return levels


class MotionEstimator:
    """The motion from each frame to the one before it."""

    def __init__(self, height: int, width: int) -> None:
        av = import_av()
        self._height, self._width, self._count = height, width, 0
        self._graph = graph = av.filter.Graph()
        buffer = graph.add_buffer(width=width, height=height, format="yuv420p", time_base=Fraction(1, 1000))
        estimate = graph.add("mestimate", f"method=epzs:mb_size={_BLOCK}:search_param={_RANGE}")
        buffer.link_to(estimate)
        estimate.link_to(graph.add("buffersink"))
        graph.configure()

    def __call__(self, frame: Levels) -> Motion | None:
        """Return the motion of the next frame (H, W, 3); None for the first."""
        av = import_av()
        image = av.VideoFrame.from_ndarray(frame.round().astype(np.uint8), format="rgb24").reformat(format="yuv420p")
        vectors = None
        for _ in range(2):  # the filter says how a frame moved when it sees the next: here the same again
            image.pts, image.time_base = self._count, Fraction(1, 1000)
            self._count += 1
            self._graph.push(image)
            try:
                vectors = self._graph.pull()
            except av.error.BlockingIOError:
                continue
        return self._field(vectors) if self._count > 2 else None

    def _field(self, frame: Any) -> Motion:
        from av.sidedata.sidedata import Type

        rows, columns = self._height // _BLOCK, self._width // _BLOCK
        field = np.zeros((2, max(rows, 1), max(columns, 1)), np.intp)
        side_data = frame.side_data.get(Type.MOTION_VECTORS)
        if side_data is not None and rows and columns:
            vectors = side_data.to_ndarray()
            vectors = vectors[vectors["source"] < 0]
            place = vectors["dst_y"] // _BLOCK, vectors["dst_x"] // _BLOCK
            for axis, name in enumerate("yx"):
                field[axis][place] = vectors[f"src_{name}"].astype(np.intp) - vectors[f"dst_{name}"]
        return enlarge(field, self._height, self._width, _BLOCK)


def enlarge(field: Motion, height: int, width: int, factor: int) -> Motion:
    """Repeat each vector over a square of `factor` pixels, and the last ones to the edges."""
    y, x = (
        np.minimum(np.arange(side) // factor, n - 1) for side, n in zip((height, width), field.shape[1:], strict=True)
    )
    return field[:, y[:, None], x]


def follow(frame: npt.NDArray[Any], motion: Motion) -> npt.NDArray[Any]:
    """Return the frame before, (H, W, 3), moved to where its parts are now."""
    height, width = frame.shape[:2]
    y = np.clip(np.arange(height)[:, None] + motion[0], 0, height - 1)
    x = np.clip(np.arange(width) + motion[1], 0, width - 1)
    moved: npt.NDArray[Any] = frame[y, x]
    return moved


class FlickerMeter:
    """The change between output frames along the input's motion, over the input's own."""

    def __init__(self) -> None:
        self._before: tuple[Levels, Levels] | None = None
        self._changes = np.zeros(2)

    def add(self, source: Levels, output: Levels, motion: Motion | None) -> None:
        """Add the next frame of input and output, both reduced, and its motion."""
        if self._before is not None and motion is not None:
            for k, (now, before) in enumerate(zip((source, output), self._before, strict=True)):
                self._changes[k] += np.abs(now - follow(before, motion)).mean(dtype=np.float64)
        self._before = source, output

    @property
    def flicker(self) -> float | None:
        """1: as steady as the input; None: the input never changes, or has one frame."""
        return float(self._changes[1] / self._changes[0]) if self._changes[0] > 0 else None


class Deflicker:
    """Steadies what is coarser than some pixels, along the input's motion, and leaves each frame's details as they are.

    A running average of whole frames would blur: motion is known to a pixel at best. So only the average's difference
    to the frame, smoothed, is added to the frame. Where the input itself changes, nothing is.
    """

    def __init__(self) -> None:
        self._before: tuple[Levels, Levels] | None = None

    def __call__(self, source: Levels, output: Levels, motion: Motion | None) -> Levels:
        """Return what to add to the next output frame, given input and output, both reduced, and the motion."""
        correction = np.zeros_like(output)
        if self._before is not None and motion is not None:
            source_before, steady_before = (follow(frame, motion) for frame in self._before)
            change = np.abs(_smooth(source - source_before)).mean(2, keepdims=True)
            same = np.exp(-((change / _SAME) ** 2))
            correction = _MEMORY * _smooth(same * (steady_before - output))
        self._before = source, output + correction
        return correction


def _smooth(frame: Levels) -> Levels:
    """Average over 3 x 3 pixels, twice."""
    for axis in (0, 1, 0, 1):
        padded = np.pad(frame, [(1, 1) if k == axis else (0, 0) for k in range(3)], mode="edge")
        size = frame.shape[axis]
        before, here, after = (padded.take(range(k, k + size), axis) for k in range(3))
        frame = (before + here + after) / np.float32(3)
    return frame


def apply(correction: Levels, pixels: Pixels) -> Pixels:
    """Add a correction, of a reduced frame, to a frame (H, W, 3) of 8 or 16 bits."""
    height, width = pixels.shape[:2]
    top = np.iinfo(pixels.dtype).max
    if correction.shape[:2] != (height, width):
        channels = [
            Image.fromarray(correction[..., k]).resize((width, height), Image.Resampling.BILINEAR) for k in range(3)
        ]
        correction = np.stack([np.asarray(channel) for channel in channels], 2)
    corrected: Pixels = (pixels + correction * np.float32(top / 255)).round().clip(0, top).astype(pixels.dtype)
    return corrected
