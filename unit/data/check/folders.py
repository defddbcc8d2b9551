"""Check the folders of both domains, for training and test."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from unit.config import DataConfig
from unit.data.check.findings import Finding, FolderSummary, Report, sort_findings
from unit.data.check.headers import CheckedHeader, check_file_headers
from unit.data.check.pixels import ImageSummary, check_exposure, decode_images, find_copies
from unit.data.datasets import Datasets
from unit.domains import Domain
from unit.errors import escape
from unit.listing import classify_files
from unit.machine import core_count

_MIN_IMAGES = 100
_BALANCE_RATIO = 5
_SHARPNESS_RATIO = 1.25
_MAX_BRIGHTNESS_DIFFERENCE = 40  # grey levels of 255
_MAX_PROCESSES = 8


@dataclass(frozen=True)
class _Folder:
    root: Path
    files: Sequence[str]
    count: int
    """number of all files; `files` may be a sample of them"""


_Folders = dict[str, _Folder]
"""By trainA, trainB, testA, testB; shards and the built-in streets have no files, and no findings."""


def check_headers(datasets: Datasets, config: DataConfig, limit: int | None = None) -> list[Finding]:
    """Check the files' headers, of each folder at most `limit`, evenly spaced; in this process, decoding nothing."""
    folders = _list_folders(datasets)
    shared = _find_shared_files(folders)
    for name, folder in folders.items():
        count = folder.count
        if limit is not None and count > limit:
            folders[name] = replace(folder, files=[folder.files[k * count // limit] for k in range(limit)])
    _, _, findings = _check_headers(folders, config, processes=0)
    return sort_findings(findings + shared + _check_counts(datasets, config))


def check_folders(datasets: Datasets, config: DataConfig, decode: bool = True) -> Report:
    """Check the headers of all files and, with `decode`, all images, on all cores.

    Raises:
        UserError: a process was killed, probably out of memory.
    """
    folders, processes = _list_folders(datasets), min(_MAX_PROCESSES, core_count())
    headers, summaries, findings = _check_headers(folders, config, processes)
    for root in {folder.root for folder in folders.values()}:
        findings += [Finding(str(root / name), "unsupported") for name in classify_files(root)[1]]
    findings += _check_counts(datasets, config)
    if decode:
        images, damaged = decode_images(headers.values(), config, processes)
        findings += damaged + [finding for image in images.values() for finding in check_exposure(image)]
        findings += _find_copies(folders, images)
        for name, folder in folders.items():
            grays = [images[file].cells.mean() for file in folder.files if file in images]
            brightness = (float(np.mean(grays)), float(np.std(grays))) if grays else None
            summaries[name] = replace(summaries[name], brightness=brightness)
        findings += _compare_brightness(summaries)
    else:
        findings += _find_shared_files(folders)
    return Report(summaries, sort_findings(findings))


def _list_folders(datasets: Datasets) -> _Folders:
    folders = {}
    for purpose, sources in (("train", datasets.train), ("test", datasets.test.images)):
        for i in Domain:
            if root := sources[i].folder:
                files = sources[i].files()
                folders[f"{purpose}{i.upper()}"] = _Folder(root, files, len(files))
    return folders


def _check_headers(
    folders: _Folders, config: DataConfig, processes: int
) -> tuple[dict[str, CheckedHeader], dict[str, FolderSummary], list[Finding]]:
    """Return each file's header, each folder's summary, and the findings in files."""
    headers = check_file_headers([file for folder in folders.values() for file in folder.files], config, processes)
    summaries = {}
    for name, folder in folders.items():
        sides = [headers[file].short_side for file in folder.files if headers[file].readable]
        summaries[name] = FolderSummary(folder.root, folder.count, round(median(sides)) if sides else None)
    findings = [finding for header in headers.values() for finding in header.findings]
    return headers, summaries, findings + _compare_sharpness(summaries, config.load_size)


def _check_counts(datasets: Datasets, config: DataConfig) -> list[Finding]:
    """Find training folders or shards of few images, or of far fewer than the other domain's."""
    findings = []
    for i in Domain:
        where = str(datasets.train[i].folder or datasets.names[i])
        count, others = len(datasets.train[i]), len(datasets.train[i.other])
        if count < _MIN_IMAGES and not config.synthetic:
            findings.append(Finding(where, "too-few", f"{count} to train on"))
        if _BALANCE_RATIO * count <= others and not config.synthetic:
            findings.append(Finding(where, "unbalanced", f"{count} to train on, and {others} of the other"))
    return findings


def _compare_sharpness(summaries: Mapping[str, FolderSummary], size: int) -> list[Finding]:
    """Compare the training folders: images scaled down to `size` are sharp, those scaled up are blurred."""
    sides = {name: side for name in ("trainA", "trainB") if name in summaries and (side := summaries[name].short_side)}
    sharpness = {name: min(1, side / size) for name, side in sides.items()}
    if len(sides) < 2 or max(sharpness.values()) < _SHARPNESS_RATIO * min(sharpness.values()):
        return []
    blurred = min(sharpness, key=lambda name: sharpness[name])
    listed = " and ".join(f"{side} px in {name}" for name, side in sides.items())
    detail = f"median short sides are {listed}; data.load_size is {size} px"
    return [Finding(str(summaries[blurred].path), "sharpness", detail)]


def _compare_brightness(summaries: Mapping[str, FolderSummary]) -> list[Finding]:
    training = {name: summaries[name] for name in ("trainA", "trainB") if name in summaries}
    means = {name: summary.brightness[0] for name, summary in training.items() if summary.brightness}
    if len(means) < 2 or max(means.values()) - min(means.values()) < _MAX_BRIGHTNESS_DIFFERENCE:
        return []
    darker = min(means, key=lambda name: means[name])
    listed = " and ".join(f"{mean:.0f} in {name}" for name, mean in means.items())
    return [Finding(str(summaries[darker].path), "brightness", f"mean grey is {listed}, of 255")]


def _find_shared_files(folders: _Folders) -> list[Finding]:
    """Find files that serve twice through links, without reading them; `_find_copies` finds copies too."""
    findings = []
    first_files: dict[tuple[int, int], tuple[str, str]] = {}
    for name, folder in folders.items():
        for file in folder.files:
            try:
                status = os.stat(file)  # noqa: PTH116 - a million files
            except OSError:  # whoever reads it will say why
                continue
            first_name, first = first_files.setdefault((status.st_dev, status.st_ino), (name, file))
            if name != first_name and file != first:  # a single image is in training and test
                check = "leak" if name[-1] == first_name[-1] else "in-both"
                findings.append(Finding(file, check, f"same file as {escape(first)}"))
    return findings


def _find_copies(folders: _Folders, images: Mapping[str, ImageSummary]) -> list[Finding]:
    """Find copies within each domain, and files that are in both."""
    findings, owners = [], []
    for letter in "AB":
        names = [name for name in ("train" + letter, "test" + letter) if name in folders]
        is_test = {file: name.startswith("test") for name in names for file in folders[name].files}
        copies, first_files = find_copies(is_test, images)
        findings += copies
        owners.append(first_files)
    for digest in owners[0].keys() & owners[1].keys():
        findings.append(Finding(owners[1][digest], "in-both", f"same file as {escape(owners[0][digest])}"))
    return sorted(findings, key=lambda finding: finding.file)
