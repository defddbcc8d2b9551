"""Translated frames → MP4, MKV or GIF with the original's times, sound and subtitles; or a folder of images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from unit.errors import UserError, escape
from unit.files import atomic_write, replacing, wrap_os_errors
from unit.images import DecodedImage, write_image_file
from unit.images import Frame as ImageFrame
from unit.images.metadata import Mark
from unit.translation.video.jobs import CONTAINERS
from unit.translation.video.marks import add_xmp, read_xmp, tags
from unit.translation.video.reading import Frame, VideoInfo, VideoReader, exact_scaling, import_av

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.packet import Packet
    from av.stream import Stream

    AnyPacket = Packet[Stream]

_CRF = 18
"""x264's quality by default: no loss to be seen at normal size."""
_WORST_CRF = 51
_GIF_TIME = Fraction(1, 100)
_GIF_STEP = 2
"""Players slow down frames that are shown for 1/100 s."""
_TECHNICAL = {"major_brand", "minor_version", "compatible_brands", "encoder", "handler_name", "vendor_id", "duration"}
TIMESTAMPS = "timestamps.txt"
"""Written last: a folder of frames that has it is whole."""


class Writer(Protocol):
    """A video that is being written."""

    lost: list[str]
    """what of the input it can't hold"""

    def write(self, frame: Frame) -> None:
        """Write the next frame."""

    def copy(self, packet: AnyPacket) -> None:
        """Write a packet of another stream, untouched, or leave it out."""


@contextmanager
def write_video(
    path: Path,
    info: VideoInfo,
    source: VideoReader | None = None,
    quality: int | None = None,
    mark: Mark | None = None,
    image_suffix: str = ".png",
) -> Iterator[Writer]:
    """Open a video to write; it is at `path` when the block ends, and not before.

    Args:
        path: ends in .mp4, .mkv or .gif, or is a folder for frames.
        info: what it is like.
        source: where to take metadata and other streams from.
        quality: 1 … 100; at 100, MKV keeps every pixel (FFV1).
        mark: what the output says about itself.
        image_suffix: of the images in a folder of frames.

    Raises:
        UserError: it can't be written.
    """
    if path.suffix.lower() not in CONTAINERS:
        frames = FrameFolder(path, info, source, quality, mark, image_suffix)
        yield frames
        frames.close()
        return
    with wrap_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file, _write_errors(path):
            container = CONTAINERS[path.suffix.lower()]
            writer: GifFile | VideoFile = (
                GifFile(file.name, info, source)
                if container == "gif"
                else VideoFile(file.name, container, info, source, quality, mark)
            )
            try:
                yield writer
                writer.finish()
            finally:
                writer.container.close()
            if mark:
                add_xmp(Path(file.name), container, mark, read_xmp(source.path) if source else None)


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    av = import_av()
    try:
        yield
    except av.error.FFmpegError as error:
        raise UserError(f"{escape(path)}: can't be written ({(error.strerror or str(error)).lower()})") from error


class VideoFile:
    """An MP4 or MKV file: H.264, H.265 for more than 8 bits, or FFV1.

    Args:
        file: where to write.
        container: FFmpeg's name of the format.
    """

    def __init__(
        self,
        file: str,
        container: str,
        info: VideoInfo,
        source: VideoReader | None,
        quality: int | None,
        mark: Mark | None,
    ) -> None:
        av = import_av()
        ticks = str(info.time_base.denominator)
        options = {"movflags": "faststart", "video_track_timescale": ticks, "movie_timescale": ticks}
        self.container: OutputContainer = av.open(
            f"file:{file}", "w", format=container, options=options if container == "mp4" else {}
        )
        self._info, self._source, self._durations = info, source, dict[int, int]()
        self.lost = ["transparency"] if info.transparent else []
        self._stream = self._add_video(quality, container)
        self._copies: dict[int, Stream] = {}
        if source:
            self.container.metadata.update(_lasting(source.container.metadata))
            self._copies = {s.index: copy for s in source.others if (copy := self._add_copy(s))}
            if chapters := source.container.chapters():
                self.container.set_chapters(chapters)
        if mark:
            self.container.metadata.update(tags(mark, self.container.metadata))

    def _add_video(self, quality: int | None, container: str) -> Any:
        info = self._info
        codec, pixel_format, options = _encoder(info, quality, container)
        stream: Any = self.container.add_stream(codec, rate=info.rate, options=options)
        stream.width, stream.height, stream.pix_fmt = info.width, info.height, pixel_format
        context = stream.codec_context
        stream.time_base = context.time_base = info.time_base
        if codec != "ffv1":
            context.colorspace, context.color_range = info.color.matrix, info.color.range
        context.color_primaries, context.color_trc = info.color.primaries, info.color.transfer
        if info.pixel_aspect:
            context.sample_aspect_ratio = info.pixel_aspect
            if codec == "ffv1" and info.pixel_aspect != 1:
                self.lost.append(f"pixel aspect {info.pixel_aspect}")
        if self._source:
            stream.metadata.update(_lasting(self._source.stream.metadata))
        return stream

    def _add_copy(self, stream: Any) -> Stream | None:
        if stream.type == "attachment" and self.container.format.name == "matroska":
            self.container.add_attachment(stream.name or _name(stream), stream.mimetype or "", stream.data)
            return None
        copied = stream.type in ("audio", "subtitle")
        if not copied or stream.codec_context.name not in self.container.supported_codecs:
            self.lost.append(_name(stream))
            return None
        copy: Stream = self.container.add_stream_from_template(stream)
        copy.metadata.update(_lasting(stream.metadata))
        copy.disposition = stream.disposition
        return copy

    def write(self, frame: Frame) -> None:
        """Write the next frame."""
        av, color = import_av(), self._info.color
        image = av.VideoFrame.from_ndarray(frame.pixels, format="rgb48le" if self._info.deep else "rgb24")
        colors = {"dst_colorspace": color.conversion, "dst_color_range": color.range}
        if not self._stream.pix_fmt.startswith("yuv"):
            colors = {}
        encoded = image.reformat(format=self._stream.pix_fmt, interpolation=exact_scaling(), **colors)
        encoded.color_primaries, encoded.color_trc = color.primaries, color.transfer
        encoded.pts, encoded.time_base = frame.pts, self._info.time_base
        self._durations[frame.pts] = frame.duration
        self._mux(self._stream.encode(encoded))

    def _mux(self, packets: Sequence[AnyPacket]) -> None:
        for packet in packets:
            if packet.pts is not None and (duration := self._durations.pop(packet.pts, 0)):
                packet.duration = duration
            self.container.mux(packet)

    def copy(self, packet: AnyPacket) -> None:
        """Write a packet of another stream, untouched, or leave it out."""
        stream = self._copies.get(packet.stream_index)
        if stream and self._source:
            shift = self._source.shift(packet.time_base)
            packet.stream = stream
            packet.dts = None if packet.dts is None else packet.dts - shift
            packet.pts = None if packet.pts is None else packet.pts - shift
            self.container.mux(packet)

    def finish(self) -> None:
        """Write what the encoder still holds."""
        self._mux(self._stream.encode())


def _name(stream: Any) -> str:
    codec = f" ({stream.codec_context.name})" if stream.type in ("audio", "subtitle", "video") else ""
    return f"{stream.type} {stream.index}{codec}"


def _lasting(metadata: Mapping[str, str]) -> dict[str, str]:
    """Leave out what describes the input's own file."""
    return {key: value for key, value in metadata.items() if key.lower() not in _TECHNICAL}


def _encoder(info: VideoInfo, quality: int | None, container: str) -> tuple[str, str, dict[str, str]]:
    """Return codec, pixel format and options."""
    if quality == 100 and container == "matroska":
        return "ffv1", "gbrp16le" if info.deep else "bgr0", {"level": "3", "slicecrc": "1"}
    crf = _CRF if quality is None else max(1, round(_WORST_CRF * (100 - quality) / 100))
    chroma = "yuv444p" if info.width % 2 or info.height % 2 else "yuv420p"  # 4:2:0 takes even sizes only
    if info.deep:  # without B-frames: with them, x265 gives clips of two frames random decoding times
        return "libx265", f"{chroma}10le", {"crf": str(crf), "x265-params": "log-level=none:bframes=0"}
    return "libx264", chroma, {"crf": str(crf)}


class GifFile:
    """A GIF, with a palette for each frame; times are rounded to 1/100 s, at most 50 frames a second are kept."""

    def __init__(self, file: str, info: VideoInfo, source: VideoReader | None) -> None:
        av = import_av()
        self.container: OutputContainer = av.open(f"file:{file}", "w", format="gif")
        self._info, self._last = info, -_GIF_STEP
        self.lost = [_name(stream) for stream in source.others] if source else []
        self._stream = self.container.add_stream("gif", rate=min(info.rate, Fraction(50)))
        self._stream.width, self._stream.height, self._stream.pix_fmt = info.width, info.height, "pal8"
        self._stream.time_base = self._stream.codec_context.time_base = _GIF_TIME
        self._graph = graph = av.filter.Graph()
        buffer = graph.add_buffer(width=info.width, height=info.height, format="rgb24", time_base=_GIF_TIME)
        split, palette = graph.add("split"), graph.add("palettegen", "stats_mode=single")
        use, sink = graph.add("paletteuse", "new=1:dither=none"), graph.add("buffersink")
        for a, i, b, j in ((buffer, 0, split, 0), (split, 0, use, 0), (split, 1, palette, 0), (palette, 0, use, 1)):
            a.link_to(b, i, j)
        use.link_to(sink)
        graph.configure()

    def write(self, frame: Frame) -> None:
        """Write the next frame, unless it comes too soon after the last one."""
        av = import_av()
        pts = round(frame.pts * self._info.time_base / _GIF_TIME)
        if pts - self._last < _GIF_STEP:
            return
        self._last = pts
        source = av.VideoFrame.from_ndarray(to_8_bits(frame), format="rgb24")
        source.pts, source.time_base = pts, _GIF_TIME
        self._graph.push(source)
        self._mux()

    def _mux(self) -> None:
        av = import_av()
        while True:
            try:
                frame = self._graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            self.container.mux(self._stream.encode(frame))

    def copy(self, packet: AnyPacket) -> None:
        """Leave it out."""

    def finish(self) -> None:
        """Write what the filters and the encoder still hold."""
        self._graph.push(None)
        self._mux()
        self.container.mux(self._stream.encode())


class FrameFolder:
    """A folder of numbered images, and a file that says when each is shown."""

    def __init__(
        self,
        folder: Path,
        info: VideoInfo,
        source: VideoReader | None,
        quality: int | None,
        mark: Mark | None,
        suffix: str,
    ) -> None:
        self._folder, self._info, self._quality, self._mark, self._suffix = folder, info, quality, mark, suffix
        self.lost = [_name(stream) for stream in source.others] if source else []
        self._times: list[str] = []
        with wrap_os_errors(folder):
            (folder / TIMESTAMPS).unlink(missing_ok=True)

    def write(self, frame: Frame) -> None:
        """Write the next frame."""
        self._times.append(f"{float(frame.pts * self._info.time_base * 1000):.6f}")
        path = self._folder / f"{len(self._times):06d}{self._suffix}"
        colors = frame.pixels if self._info.deep else Image.fromarray(frame.pixels)
        lost = write_image_file(DecodedImage("", (ImageFrame(colors),)), path, self._quality, mark=self._mark)
        self.lost += [name for name in lost if name not in self.lost]

    def copy(self, packet: AnyPacket) -> None:
        """Leave it out."""

    def close(self) -> None:
        """Write the times in milliseconds, in the format of mkvmerge."""
        for path in self._folder.glob(f"[0-9]*{self._suffix}"):  # of an earlier, longer video
            if len(path.stem) == 6 and path.stem.isdecimal() and int(path.stem) > len(self._times):
                path.unlink()
        lines = "\n".join(["# timestamp format v2", *self._times, ""])
        atomic_write(self._folder / TIMESTAMPS, lines.encode(), sync=False)


def to_8_bits(frame: Frame) -> Any:
    """Return the pixels as uint8."""
    pixels = frame.pixels
    return pixels if pixels.dtype.itemsize == 1 else ((pixels.astype("uint32") * 255 + 32767) // 65535).astype("uint8")


def write_images_as_video(
    path: Path, images: Iterable[Image.Image], rate: int, quality: int | None = None, mark: Mark | None = None
) -> None:
    """Write RGB images of one size as a video of constant rate, in frames per second; the rest as in `write_video`.

    Raises:
        ConfigError: PyAV is not installed.
        UserError: it can't be written.
    """
    import_av()
    images = iter(images)
    first = next(images)
    info = VideoInfo(*first.size, Fraction(1, rate), Fraction(rate))
    with write_video(path, info, quality=quality, mark=mark) as writer:
        for number, image in enumerate(chain([first], images)):
            writer.write(Frame(np.asarray(image), number, 1))
