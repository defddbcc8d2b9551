"""Checks of the files' headers: nothing is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from unit.config import DataConfig
from unit.data.check.findings import Finding
from unit.data.check.parallel import parallel_map
from unit.errors import ImageError, escape
from unit.images import MAX_PIXELS, read_header

_MAX_ASPECT = 4  # cinema has 2.4, phone screens 2.2, film panoramas 2.7; beyond are stitched strips and banners
_PARALLEL_FROM = 20_000  # headers; fewer are read before processes have started


@dataclass(frozen=True, slots=True)
class CheckedHeader:
    """One file's header: its findings, and the sizes that later checks use."""

    file: str
    findings: tuple[Finding, ...]
    short_side: int = 0
    bytes: int = 0

    @property
    def readable(self) -> bool:
        """True if training would not stop at this file."""
        return all(finding.level != "error" for finding in self.findings)


def check_file_headers(files: Sequence[str], config: DataConfig, processes: int) -> dict[str, CheckedHeader]:
    """Check each file's header; about 6,000 a second and process."""
    processes = processes if len(files) >= _PARALLEL_FROM else 0
    return dict(zip(files, parallel_map(partial(_check_header, config), files, processes), strict=True))


def _check_header(config: DataConfig, file: str) -> CheckedHeader:
    try:
        header = read_header(Path(file))
    except ImageError as error:
        return CheckedHeader(file, (read_failure(file, "unreadable", error),))
    short, long = sorted((header.width, header.height))
    size = f"{header.width}x{header.height}"
    checks = {
        "too-large": (short * long > config.max_pixels, size),
        "too-thin": (config.load_size**2 * long > MAX_PIXELS * short, size),
        "too-small": (short < config.crop_size, size),
        "aspect": (long > _MAX_ASPECT * short, size),
        "misnamed": (header.misnamed, ""),
        "rotated": (header.orientation in range(2, 9), f"orientation {header.orientation}"),
        "gray": (header.mode in ("1", "L", "LA", "La") or header.mode.startswith("I"), ""),
        "alpha": (header.transparent, ""),
        "palette": (header.mode in ("P", "PA"), ""),
        "cmyk": (header.mode == "CMYK", ""),
        "16-bit": (header.deep, ""),
        "animated": (header.animated, ""),
    }
    findings = tuple(Finding(file, check, detail, short) for check, (failed, detail) in checks.items() if failed)
    return CheckedHeader(file, findings, short, header.bytes)


def read_failure(file: str, check: str, error: ImageError) -> Finding:
    """Turn an `ImageError` into a finding."""
    return Finding(file, check, str(error).removeprefix(f"{escape(file)}: "))
