"""Small videos for tests, made by PyAV."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from torch import Tensor

from tests.tiny import TINY
from unit.domains import Domain, PerDomain
from unit.model.networks import build_autoencoders
from unit.translation.files.image_files import Settings
from unit.translation.files.jobs import Job
from unit.translation.translator import Translator
from unit.translation.video.jobs import VideoOutcome
from unit.translation.video.reading import Frame, VideoReader
from unit.translation.video.translate import VideoSettings, translate_videos

Array = npt.NDArray[Any]


class Copier(Translator):
    """Returns its input, and records the batches."""

    def __init__(self) -> None:
        super().__init__(build_autoencoders(TINY.model), TINY, PerDomain("sunny", "rainy"), 0, "cpu", "fp32")
        self.batches: list[int] = []

    def translate(self, images: Tensor, source: Domain, seed: int | None = None, **_: Any) -> Tensor:
        self.batches.append(len(images))
        return images


def noise(count: int = 5, height: int = 12, width: int = 16, seed: int = 0) -> list[Array]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8))


def plain(color: Sequence[int], count: int = 1, height: int = 12, width: int = 16) -> list[Array]:
    return [np.full((height, width, 3), color, np.uint8)] * count


def make_clip(
    path: Path,
    images: Iterable[Array] | None = None,
    pts: Sequence[int] | None = None,
    *,
    codec: str = "ffv1",
    pix_fmt: str = "bgr0",
    time_base: Fraction = Fraction(1, 1000),
    frame_format: str = "rgb24",
    color: tuple[int, int, int, int] | None = None,
    convert: Callable[[av.VideoFrame], av.VideoFrame] | None = None,
    setup: Callable[[Any, Any], None] = lambda container, stream: None,
    sound: str | None = None,
    sound_start: int = 0,
    subtitle: Path | None = None,
    options: dict[str, str] | None = None,
    last: int = 0,
) -> Path:
    """Write a video; `color`: codes of matrix, range, primaries and transfer; `sound_start`: in seconds."""
    images = noise() if images is None else list(images)
    pts = [40 * k for k in range(len(images))] if pts is None else pts
    subtitles = av.open(str(subtitle)) if subtitle else None
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.time_base = stream.codec_context.time_base = time_base
        if color:
            context = stream.codec_context
            context.colorspace, context.color_range, context.color_primaries, context.color_trc = color
        setup(container, stream)
        audio: Any = container.add_stream(sound, rate=48000) if sound else None
        text: Any = container.add_stream_from_template(subtitles.streams[0]) if subtitles else None
        if audio:
            audio.metadata["language"] = "fra"
        for image, time in zip(images, pts, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format=frame_format)
            frame = convert(frame) if convert else frame.reformat(format=pix_fmt)
            frame.pts, frame.time_base = time, time_base
            container.mux(stream.encode(frame))
        if audio:
            wave = np.sin(np.arange(20 * 1024) / 9).astype(np.float32)
            for k in range(20):
                part = av.AudioFrame.from_ndarray(
                    np.stack([wave[k * 1024 : (k + 1) * 1024]] * 2), format="fltp", layout="stereo"
                )
                part.sample_rate, part.pts, part.time_base = 48000, 48000 * sound_start + k * 1024, Fraction(1, 48000)
                if audio.codec_context.name != "aac":
                    part = av.AudioResampler("s16", "stereo", 48000).resample(part)[0]
                container.mux(audio.encode(part))
            container.mux(audio.encode())
        if subtitles:
            for packet in subtitles.demux():
                if packet.dts is not None:
                    packet.stream = text
                    container.mux(packet)
        for packet in stream.encode():
            packet.duration = last if last and packet.pts == pts[-1] else packet.duration
            container.mux(packet)
    if subtitles:
        subtitles.close()
    return path


def go(path: Path, out: Path, *, translator: Translator | None = None, **settings: Any) -> VideoOutcome:
    """Translate one video, by default into itself."""
    own = {key: settings.pop(key) for key in ("batch_size", "image_suffix", "deflicker", "marker") if key in settings}
    other = {key: settings.pop(key) for key in ("stop", "progress") if key in settings}
    video_settings = VideoSettings(Settings(source=Domain.A, **settings), **own)
    (outcome,) = translate_videos(translator or Copier(), [Job(path, (out,))], video_settings, **other)
    return outcome


def read(path: Path) -> list[Frame]:
    with VideoReader(path) as video:
        return [item for item in video if isinstance(item, Frame)]


def images(path: Path) -> Array:
    return np.stack([frame.pixels for frame in read(path)])


def times(path: Path) -> list[Fraction]:
    """Return each frame's time, in seconds, as another program would see it."""
    with av.open(str(path)) as container:
        return [Fraction(frame.pts) * frame.time_base for frame in container.decode(video=0)]


def packets(path: Path, kind: str) -> list[tuple[float, bytes]]:
    with av.open(str(path)) as container:
        (stream,) = (stream for stream in container.streams if stream.type == kind)
        return [(float(p.pts * p.time_base), bytes(p)) for p in container.demux(stream) if p.dts is not None]
