"""The checks, their findings and the text report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from unit.errors import escape
from unit.listing import UNSUPPORTED_ADVICE


@dataclass(frozen=True)
class Check:
    """A kind of problem to look for."""

    level: Literal["error", "warning", "note"]
    """error: training would stop at it"""
    title: str
    advice: str


CHECKS = {
    "unreadable": Check("error", "can't be read", "replace or remove them"),
    "damaged": Check("error", "damaged or cut short", "replace or remove them"),
    "unsupported": Check("warning", "images or videos that are not read", UNSUPPORTED_ADVICE),
    "too-large": Check("error", "more pixels than data.max_pixels", "make them smaller, or raise data.max_pixels"),
    "too-thin": Check("error", "too thin to be scaled to data.load_size", "crop or remove them"),
    "too-few": Check("warning", "few images to learn from", "discriminators memorize small sets; add a few hundred"),
    "unbalanced": Check(
        "warning",
        "far fewer images in one domain",
        "they repeat more often, and its discriminator memorizes them; add some",
    ),
    "sharpness": Check(
        "warning",
        "one domain is enlarged, the other not",
        "networks would learn blur as a mark of the domain; lower data.load_size, or find larger images",
    ),
    "too-small": Check(
        "warning", "smaller than the crop", "enlarged, so blurred; remove them, or lower data.crop_size"
    ),
    "aspect": Check("warning", "aspect ratio beyond 4:1", "square training crops show little of them; crop them"),
    "leak": Check(
        "warning", "test images that are also training images", "remove one of each pair: such tests are biased"
    ),
    "in-both": Check("warning", "in both domains", "keep each in one domain; they can't show how the domains differ"),
    "duplicate": Check("warning", "copies of another file", "remove them; each counts as one more image in training"),
    "near-duplicate": Check("warning", "nearly the same as another image", "thin out bursts, film frames and copies"),
    "dark": Check("warning", "nearly black", "remove them; there is nothing in them to translate"),
    "overexposed": Check("warning", "nearly white", "remove them; there is nothing in them to translate"),
    "blank": Check("warning", "one plain colour", "remove them; there is nothing in them to translate"),
    "brightness": Check("note", "domains differ in brightness", "fine for day and night; else even out the exposure"),
    "misnamed": Check("note", "contents do not match the extension", "nothing to do: they are read by their content"),
    "rotated": Check("note", "rotated by EXIF", "nothing to do: they are read upright"),
    "gray": Check("note", "grey", "fine if their domain is grey; else some translations come out grey"),
    "alpha": Check("note", "with transparency", "transparent parts become white; if that is wrong, fill them first"),
    "palette": Check("note", "with a palette", "they are read as they look; originals with more colours are better"),
    "cmyk": Check("note", "in print colours (CMYK)", "converted by their profile, or else roughly; RGB is better"),
    "16-bit": Check("note", "more than 8 bits a channel", "65535 is read as white; rescale them if that is too dark"),
    "animated": Check("note", "several frames or pages", "only the first is used; save the others as files"),
}
"""By name, in the order of reports."""
_MAX_FILES = 5  # of more, per check, only an example is shown
_FOLDER_CHECKS = {"too-few", "unbalanced", "sharpness", "brightness"}
"""Checks of a folder, not of its files."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A file, or a training folder, that failed a check."""

    file: str
    """the raw path: `escape` makes it printable"""
    check: str
    """one of `CHECKS`"""
    detail: str = ""
    """printable text"""
    short_side: int = 0
    """of the image in pixels, if the header gives it; the smallest image is the example of many"""

    @property
    def level(self) -> str:
        """Error, warning or note."""
        return CHECKS[self.check].level


@dataclass(frozen=True)
class FolderSummary:
    """A summary of the images of one domain, for training or test."""

    path: Path
    images: int
    short_side: int | None = None
    """median, in pixels; None: no image could be read"""
    brightness: tuple[float, float] | None = None
    """mean and standard deviation, over the images, of their mean grey, 0 … 255; None: not decoded"""


@dataclass(frozen=True)
class Report:
    """The result of `check_folders`."""

    folders: dict[str, FolderSummary]
    """by trainA, trainB, testA, testB"""
    findings: list[Finding]

    @property
    def usable(self) -> bool:
        """True if training would not stop at an image."""
        return all(finding.level != "error" for finding in self.findings)


def sort_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Sort by check, in the order of `CHECKS`; stable within one."""
    order = list(CHECKS)
    return sorted(findings, key=lambda finding: order.index(finding.check))


def describe_findings(findings: Sequence[Finding]) -> str:
    """Return a line for each check, errors first, and below it the files, or an example of many."""
    lines = []
    for name, check in CHECKS.items():
        group = [finding for finding in findings if finding.check == name]
        if not group:
            continue
        count = "" if name in _FOLDER_CHECKS else f" ({len(group):,} file{'s' * (len(group) > 1)})"
        lines.append(f"{check.level}: {check.title}{count}: {check.advice}")
        if check.level == "note" and len(group) > 1:
            continue
        many = len(group) > _MAX_FILES
        shown = [min(group, key=lambda finding: finding.short_side)] if many else group
        example = "e.g. " * many
        lines += [f"    {example}{escape(finding.file)}{finding.detail and ': ' + finding.detail}" for finding in shown]
    return "\n".join(lines)
