"""The part of ``translate`` that translates videos."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tqdm import tqdm

from unit.errors import escape
from unit.translation.files.jobs import Job
from unit.translation.video.jobs import Images, VideoOutcome, plan_videos
from unit.translation.video.reading import import_av

if TYPE_CHECKING:
    from unit.translation.files.image_files import Settings
    from unit.translation.translator import Translator

log = logging.getLogger(__name__)


def plan(clips: Images, arguments: argparse.Namespace) -> list[Job]:
    """Choose the outputs, or say what is missing, before the images of the same command are translated.

    Raises:
        ConfigError: as `plan_videos`, or PyAV is not installed.
    """
    import_av()
    return plan_videos(clips, arguments.out, arguments.format, arguments.samples)


def translate(
    translator: Translator,
    jobs: Sequence[Job],
    settings: Settings,
    arguments: argparse.Namespace,
    image_suffix: str,
) -> Iterator[VideoOutcome]:
    """Translate videos; Ctrl-C finishes the file that is being written.

    Raises:
        SystemExit: after a signal; all outcomes so far have been yielded.
    """
    from unit.training.signals import stop_on_signals
    from unit.translation.files.image_files import marker_of
    from unit.translation.video.translate import VideoSettings, translate_videos

    video_settings = VideoSettings(
        settings, arguments.batch_size, image_suffix, arguments.deflicker, marker_of(translator, settings)
    )
    with stop_on_signals() as request, tqdm(unit="frame", disable=not sys.stderr.isatty()) as bar:

        def progress(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        for outcome in translate_videos(translator, jobs, video_settings, lambda: bool(request.signal), progress):
            bar.reset()
            yield outcome
    if request.signal:
        raise SystemExit(128 + request.signal)


def describe(outcome: VideoOutcome) -> str:
    """Return one line about a video that is done, and warn of what is missing in it."""
    name = escape(outcome.outputs[0])
    if outcome.damaged:
        log.warning("%s: %d damaged pieces of the input are missing", name, outcome.damaged)
    if outcome.interrupted:
        log.warning("%s: stopped early, holds the first %.1f s; --overwrite starts again", name, outcome.seconds)
    flicker = "" if outcome.flicker is None else f", flicker {outcome.flicker:.2f} (1: as steady as the input)"
    return f"{name}: {outcome.frames} frames, {outcome.seconds:.1f} s{flicker}"
