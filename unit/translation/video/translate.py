"""Translating a video: frames in batches, everything else of the file as it was, in memory that does not grow."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from unit.errors import UserError, escape
from unit.images import Frame as ImageFrame
from unit.machine import available_memory
from unit.translation.files.image_files import SMALLER, Settings
from unit.translation.files.jobs import Job, is_folder
from unit.translation.frames import finish, scale, suited, translate_scaled
from unit.translation.provenance.marking import Marker
from unit.translation.translator import Translator
from unit.translation.video.flicker import Deflicker, FlickerMeter, MotionEstimator, apply, reduce
from unit.translation.video.jobs import CONTAINERS, VideoOutcome
from unit.translation.video.reading import Frame, Pixels, VideoReader
from unit.translation.video.writing import TIMESTAMPS, Writer, write_video

_BATCH = 8
"""Frames to translate together, if no batch size is set and the memory suffices."""


@dataclass(frozen=True)
class VideoSettings:
    """How to translate videos."""

    images: Settings
    """what holds for images too"""
    batch_size: int | None = None
    """frames to translate together; None: what is good for the machine"""
    image_suffix: str = ".png"
    """of the images in folders of frames"""
    deflicker: bool = False
    """steady the output"""
    marker: Marker = field(default_factory=Marker)
    """marks the outputs"""


def translate_videos(
    translator: Translator,
    jobs: Sequence[Job],
    settings: VideoSettings,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> Iterator[VideoOutcome]:
    """Translate videos one after the other; one that fails has an outcome that says why, and the others are done.

    Args:
        translator: the model.
        jobs: from `plan_videos`.
        settings: how.
        stop: asked after each batch; once it is true, the file is finished with the frames so far.
        progress: called after each batch with the frames of a video that are done, and how many it has, if known.
    """
    for job in jobs:
        for number, output in enumerate(job.outputs):
            if stop():
                return
            seed = None if settings.images.samples is None else settings.images.seed + number
            yield _translate_video(translator, job.input, output, settings, seed, stop, progress)


def _translate_video(
    translator: Translator,
    path: Path,
    output: Path,
    settings: VideoSettings,
    seed: int | None,
    stop: Callable[[], bool],
    progress: Callable[[int, int | None], None],
) -> VideoOutcome:
    outcome = VideoOutcome(str(path), "done", (output,))
    if reason := _reason_not_to_write(path, output, signed=settings.marker.signer is not None):
        return replace(outcome, status="failed", outputs=(), reason=f"{reason}; give another --out")
    if os.path.lexists(output) and not settings.images.overwrite:
        if is_folder(output) and not os.path.lexists(output / TIMESTAMPS):
            reason = f"{escape(output)}: is not whole, as it has no {TIMESTAMPS}; --overwrite starts again"
            return replace(outcome, status="failed", outputs=(), reason=reason)
        return replace(outcome, status="skipped", reason="exists already; --overwrite replaces it")
    try:
        with VideoReader(path) as video:
            frames = _Frames(translator, video, settings, seed)
            quality, mark = settings.images.quality, settings.marker.provenance
            with write_video(output, video.info, video, quality, mark, settings.image_suffix) as writer:
                for batch in frames.read_batches(writer):
                    for frame in frames.translate(batch):
                        writer.write(frame)
                    progress(frames.count, video.frame_count)
                    if stopped := stop():
                        break
            _sign(settings.marker, output, path)
            size = (video.info.width, video.info.height)
            seconds = float((frames.last - frames.first) * video.info.time_base)
            return replace(
                outcome,
                size=size,
                frames=frames.count,
                seconds=seconds,
                flicker=frames.meter.flicker,
                lost=tuple(writer.lost),
                damaged=video.damaged,
                interrupted=stopped,
            )
    except UserError as error:
        return replace(outcome, status="failed", outputs=(), reason=str(error))


class _Frames:
    """The frames of one video, in batches, and what is known of those before."""

    def __init__(self, translator: Translator, video: VideoReader, settings: VideoSettings, seed: int | None) -> None:
        self._translator = suited(translator, video.info.deep)
        self._video, self._settings, self._seed = video, settings, seed
        self.count = self.first = self.last = 0
        self.meter = FlickerMeter()
        self._deflicker = Deflicker() if settings.deflicker else None
        self._motion: MotionEstimator | None = None
        needed = translator.bytes_needed(video.info.width * video.info.height)
        self._size = max(1, min(settings.batch_size or _BATCH, available_memory() // 4 // needed))

    def read_batches(self, writer: Writer) -> Iterator[list[Frame]]:
        """Yield the frames; packets of other streams go to the writer in their order."""
        batch: list[Frame] = []
        for item in self._video:
            if not isinstance(item, Frame):
                writer.copy(item)
                continue
            batch.append(item)
            if len(batch) == self._size:
                yield batch
                batch = []
        if batch:
            yield batch

    def translate(self, batch: list[Frame]) -> Iterator[Frame]:
        """Yield the translated frames of a batch."""
        for frame, pixels in zip(batch, self._translate([frame.pixels for frame in batch]), strict=True):
            self.first, self.last, self.count = frame.pts if self.count == 0 else self.first, frame.pts, self.count + 1
            yield replace(frame, pixels=self._steady(frame.pixels, pixels))

    def _translate(self, pixels: list[Pixels]) -> list[Pixels]:
        images = self._settings.images
        frames = [ImageFrame(Image.fromarray(p) if p.dtype == np.uint8 else p) for p in pixels]
        try:
            scaled = [scale(frame, images.size) for frame in frames]
            out = translate_scaled(self._translator, scaled, images.source, len(scaled), self._seed, images.strength)
            return [np.asarray(finish(*pair).colors) for pair in zip(out, frames, strict=True)]
        except UserError as error:
            hint = f"; {SMALLER}" if "memory" in str(error) else ""
            raise UserError(f"{escape(self._video.path)}: {error}{hint}") from error
        except ValueError as error:
            reason = "the model's output contains NaN or Inf; try --precision fp32, or a model of an earlier step"
            raise UserError(f"{escape(self._video.path)}: {reason}") from error

    def _steady(self, source: Pixels, output: Pixels) -> Pixels:
        """Measure the flicker, and lower it if asked to."""
        small, small_output = reduce(source), reduce(output)
        if self._motion is None:
            self._motion = MotionEstimator(*small.shape[:2])
        motion = self._motion(small)
        if self._deflicker:
            output = apply(self._deflicker(small, small_output, motion), output)
            small_output = reduce(output)
        self.meter.add(small, small_output, motion)
        return output


def _sign(marker: Marker, output: Path, path: Path) -> None:
    try:
        marker.sign_file(output, path)
    except UserError:
        output.unlink()  # else the next command would take it for done
        raise


def _reason_not_to_write(path: Path, output: Path, signed: bool) -> str | None:
    if os.path.realpath(path) == os.path.realpath(output):
        return f"{escape(output)} is an input"
    if output.suffix.lower() in CONTAINERS and is_folder(output):
        return f"{escape(output)} is a folder"
    if signed and output.suffix.lower() not in (".mp4", ".gif"):
        return f"{escape(output)} can't be signed; .mp4 can"
    return None
