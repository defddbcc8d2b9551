"""Video file → upright RGB frames with their times, and the packets of all other streams, in the file's order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from unit.errors import ConfigError, ImageError, escape
from unit.files import require_regular_file

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.stream import VideoStream

Pixels = npt.NDArray[Any]

_MAX_BYTES = 2**62  # a video is never held in memory
_UNSPECIFIED = 2  # of a matrix, primaries and transfer in ISO 23091-2
_BT709, _BT601, _BT2020_CL, _BT2020 = 1, 6, 10, 9  # matrices there
_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
"""swscale's name for each matrix."""
_LIMITED = 1
_HD = 720  # lines from which players take an untagged video for BT.709


@dataclass(frozen=True)
class Frame:
    """One frame of a video."""

    pixels: Pixels
    """(H, W, 3), upright RGB: uint8, or uint16 if the video has more than 8 bits"""
    pts: int
    """time, in units of the video's time base"""
    duration: int
    """0: unknown"""


@dataclass(frozen=True)
class Color:
    """How a video's numbers stand for colours, in the codes of ISO 23091-2."""

    matrix: int
    """never unspecified: untagged videos are taken as players take them"""
    range: int
    """1: limited, 2: full"""
    primaries: int
    transfer: int

    @property
    def conversion(self) -> int:
        """swscale's name of the matrix."""
        return _MATRICES[self.matrix]


@dataclass(frozen=True)
class VideoInfo:
    """What a video is like; an output takes it over from its input."""

    width: int
    """of the upright frames"""
    height: int
    time_base: Fraction
    """seconds"""
    rate: Fraction
    """frames per second, on average"""
    color: Color = field(default_factory=lambda: Color(_BT709, _LIMITED, _BT709, _BT709))
    deep: bool = False
    """more than 8 bits"""
    transparent: bool = False
    pixel_aspect: Fraction | None = None
    """width of a pixel, divided by its height; None: unknown"""


def import_av() -> Any:
    """Return PyAV.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise ConfigError("the package av is not installed, which videos need; pip install av") from error
    return av


@contextmanager
def video_errors(path: Path, action: str) -> Iterator[None]:
    """Turn PyAV's errors into an `ImageError` of one line that says that `action` failed."""
    av = import_av()
    try:
        yield
    except av.error.FFmpegError as error:
        raise ImageError(f"{escape(path)}: can't be {action} ({(error.strerror or str(error)).lower()})") from error
    except OSError as error:
        raise ImageError(f"{escape(path)}: can't be {action} ({error.strerror or error})") from error


class VideoReader:
    """An open video: an iterator over the frames of its first video stream and the other streams' packets.

    Args:
        path: of a file in any container and codec that PyAV reads.

    Raises:
        ConfigError: PyAV is not installed.
        ImageError: it can't be read, or has no frames.
    """

    def __init__(self, path: Path) -> None:
        av = import_av()
        self.path, self.damaged = path, 0
        with video_errors(path, "read"):
            require_regular_file(path, _MAX_BYTES)
            # With a protocol, no part of a name is taken for one; and what a playlist names stays on this machine.
            options = {"protocol_whitelist": "file,crypto,data"}
            self.container: InputContainer = av.open(
                f"file:{path}", container_options=options, metadata_errors="replace"
            )
        streams = [stream for stream in self.container.streams.video if not _is_cover(stream)]
        if not streams:
            self.container.close()
            raise ImageError(f"{escape(path)}: holds no video; give another file")
        self.stream = streams[0]
        self.stream.thread_type = "AUTO"
        self._time_base: Fraction = self.stream.time_base or Fraction(1, 90_000)
        self._rate: Fraction = self.stream.average_rate or self.stream.guessed_rate or Fraction(25)
        self.others = [stream for stream in self.container.streams if stream.index != self.stream.index]
        self._last_pts: int | None = None
        self._items = self._read()
        self._first = self._read_first()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.container.close()

    def _read_first(self) -> list[Frame | Packet[Stream]]:
        """Read up to the first frame, which says more than the header."""
        items: list[Frame | Packet[Stream]] = []
        for item in self._items:
            items.append(item)
            if isinstance(item, Frame):
                return items
        self.container.close()
        raise ImageError(f"{escape(self.path)}: no frame can be read; it may be damaged or cut short")

    def __iter__(self) -> Iterator[Frame | Packet[Stream]]:
        while self._first:
            yield self._first.pop(0)
        yield from self._items

    @property
    def frame_count(self) -> int | None:
        """The number of frames, estimated from the duration where the header does not say; None: unknown."""
        if self.stream.frames:
            return int(self.stream.frames)
        return round(self.container.duration / 1e6 * self._rate) if self.container.duration else None

    def shift(self, time_base: Fraction) -> int:
        """Return what to subtract from times: a recording's clock (MPEG-TS) need not start at 0, a file does."""
        return round(max(0, self.container.start_time or 0) / 1_000_000 / time_base)

    def _read(self) -> Iterator[Frame | Packet[Stream]]:
        av = import_av()
        with video_errors(self.path, "read"):
            for packet in self.container.demux():
                if packet.stream_index != self.stream.index:
                    if packet.dts is not None:
                        yield packet
                    continue
                try:
                    frames: Any = packet.decode()
                except av.error.InvalidDataError:
                    self.damaged += 1
                    continue
                yield from map(self._frame, frames)

    def _frame(self, frame: av.VideoFrame) -> Frame:
        if self._last_pts is None:
            self.info, self._size = self._inspect(frame), (frame.width, frame.height)
        rgb = frame.reformat(
            *self._size,  # of the first frame, as the output can have one size only
            format="rgb48le" if self.info.deep else "rgb24",
            src_colorspace=None if frame.colorspace in _MATRICES else self.info.color.conversion,
            interpolation=exact_scaling(),
        )
        return Frame(_upright(rgb.to_ndarray(), frame), self._pts(frame), frame.duration or 0)

    def _inspect(self, frame: av.VideoFrame) -> VideoInfo:
        height, width = _upright(np.empty((frame.height, frame.width), np.uint8), frame).shape
        aspect = self.stream.sample_aspect_ratio
        return VideoInfo(
            width=width,
            height=height,
            time_base=self._time_base,
            rate=self._rate,
            color=_color(frame),
            deep=max(component.bits for component in frame.format.components) > 8,
            transparent=any(component.is_alpha for component in frame.format.components),
            pixel_aspect=1 / aspect if aspect and (width, height) != (frame.width, frame.height) else aspect,
        )

    def _pts(self, frame: av.VideoFrame) -> int:
        """Return the frame's time; where a container has none (AVI), or one twice, the next after the last."""
        last = self._last_pts
        if frame.pts is not None:
            pts = int(frame.pts) - self.shift(self._time_base)
            pts = pts if last is None else max(pts, last + 1)
        else:
            pts = 0 if last is None else last + max(1, round(1 / self._rate / self._time_base))
        self._last_pts = pts
        return pts


def _is_cover(stream: VideoStream) -> bool:
    from av.stream import Disposition

    return bool(stream.disposition & Disposition.attached_pic)


def exact_scaling() -> int:
    """Return swscale's flags for full chroma resolution, and the same result on every machine."""
    from av.video.reformatter import Interpolation

    chroma = Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
    return int(Interpolation.BICUBIC | chroma | Interpolation.ACCURATE_RND | Interpolation.BITEXACT)


def _color(frame: av.VideoFrame) -> Color:
    is_rgb = frame.format.is_rgb
    matrix = int(frame.colorspace)
    if matrix not in _MATRICES:
        matrix = _BT709 if is_rgb or min(frame.width, frame.height) >= _HD else _BT601
    color_range = _LIMITED if is_rgb else int(frame.color_range) or _LIMITED
    return Color(matrix, color_range, int(frame.color_primaries), int(frame.color_trc))


def _upright(pixels: Pixels, frame: av.VideoFrame) -> Pixels:
    """Turn and mirror as the frame's display matrix says."""
    from av.sidedata.sidedata import Type

    side_data = frame.side_data.get(Type.DISPLAYMATRIX)  # type: ignore[call-overload]
    if side_data is None:
        return pixels
    a, b, _, c, d = np.frombuffer(side_data, np.int32)[:5]  # x' = ax + cy, y' = bx + dy
    if abs(a) < abs(b):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
