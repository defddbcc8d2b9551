"""Which inputs are videos, and the names of their outputs."""

from __future__ import annotations

import os.path
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from unit.errors import ConfigError, escape
from unit.images import formats
from unit.translation.files.jobs import Job, Outcome, is_folder

CONTAINERS = {".mp4": "mp4", ".mkv": "matroska", ".gif": "gif"}
"""The video files that can be written, with FFmpeg's name of each format."""
VIDEO_FORMATS = tuple(suffix[1:] for suffix in CONTAINERS)
VIDEO_SUFFIXES = formats.VIDEO_SUFFIXES | {".ts"}
"""Suffixes of videos, in lower case."""
Image = tuple[Path, PurePosixPath]
Images = Sequence[Image]


@dataclass(frozen=True)
class VideoOutcome(Outcome):
    """The result for one video."""

    frames: int = 0
    seconds: float = 0.0
    """from the first frame to the last"""
    flicker: float | None = None
    """of the output, as a multiple of the input's; None: the input never changes"""
    damaged: int = 0
    """pieces of the input that could not be read, and are missing"""
    interrupted: bool = False
    """the output holds the first frames only"""


def split_videos(images: Images, out: Path) -> tuple[list[Image], list[Image]]:
    """Split the files that `find_images` found into images and videos; a GIF is a video if one is to be written."""
    suffixes = VIDEO_SUFFIXES | ({".gif"} if out.suffix.lower() in (".mp4", ".mkv") else set())
    halves: tuple[list[Image], list[Image]] = ([], [])
    for image in images:
        halves[image[0].suffix.lower() in suffixes].append(image)
    return halves


def plan_videos(videos: Images, out: Path, kind: str | None, samples: int | None) -> list[Job]:
    """Choose what to write for each video: a file, or a folder of frames, which has no suffix.

    Args:
        videos: (path, relative path of the output) of each.
        out: a folder, or, for one video, a file that ends in .mp4, .mkv or .gif.
        kind: "mp4", "mkv", "gif", or else the format of the images in a folder of frames; None: "mp4".
        samples: outputs per video, numbered from 1; None: one without a number.

    Raises:
        ConfigError: `out` names a file and there are several videos or samples for it, or two outputs have one name.
    """
    if out.suffix.lower() in CONTAINERS and not is_folder(out):
        if len(videos) > 1 or samples is not None:
            raise ConfigError(f"--out {escape(out)}: one file can't take several videos; give a folder")
        return [Job(path, (out,)) for path, _ in videos]
    if (os.path.lexists(out) or out.suffix.lower() in VIDEO_SUFFIXES) and not is_folder(out):
        raise ConfigError(f"--out {escape(out)}: give a folder, or a file that ends in .mp4, .mkv or .gif")
    suffix = f".{kind or 'mp4'}"
    suffix = suffix if suffix in CONTAINERS else ""
    numbers = [""] if samples is None else [f"-{k + 1}" for k in range(samples)]
    jobs = [
        Job(path, tuple(out / target.with_name(f"{target.stem}{number}{suffix}") for number in numbers), out)
        for path, target in videos
    ]
    owners: dict[str, Path] = {}
    for job in jobs:
        for output in job.outputs:
            if (other := owners.setdefault(str(output).casefold(), job.input)) != job.input:
                raise ConfigError(
                    f"{escape(other)} and {escape(job.input)} would be written under one name; translate one after "
                    "the other with another --out"
                )
    return jobs
