"""What would go wrong in training, seen beforehand: from the files' headers, then from the images themselves."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from unit.config import DataConfig
from unit.data.datasets import Datasets
from unit.data.folders import ImageFolder
from unit.domains import Domain, PerDomain
from unit.errors import ImageError, UserError, escape
from unit.images import MAX_PIXELS, read_header, read_image

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Kind:
    """A class of findings."""

    level: Literal["error", "warning", "note"]
    """error: training would stop at it"""
    title: str
    advice: str
    of_folder: bool = False
    """found in a folder as a whole, not in files"""


KINDS = {
    "unreadable": Kind("error", "can't be read", "replace or remove them"),
    "damaged": Kind("error", "damaged or cut short", "replace or remove them"),
    "too-large": Kind("error", "more pixels than data.max_pixels", "make them smaller, or raise data.max_pixels"),
    "too-thin": Kind("error", "too thin to be scaled to data.load_size", "crop or remove them"),
    "too-few": Kind(
        "warning",
        "few images to learn from",
        "the discriminators learn so few by heart; add more, some hundreds at best",
        of_folder=True,
    ),
    "sharpness": Kind(
        "warning",
        "one domain must be enlarged, the other not",
        "the networks would take blur for a mark of the domain; lower data.load_size, or find larger images",
        of_folder=True,
    ),
    "too-small": Kind(
        "warning", "smaller than the crop", "they are enlarged and stay blurred; remove them, or lower data.crop_size"
    ),
    "aspect": Kind(
        "warning", "a strip beyond 4:1", "training cuts squares out of images, and of these sees little; crop them"
    ),
    "leak": Kind(
        "warning",
        "test images that are in training too",
        "remove one of each pair, or the test shows what was learnt by heart",
    ),
    "in-both": Kind(
        "warning", "in both domains", "keep each image in one domain; it says nothing about what tells them apart"
    ),
    "duplicate": Kind("warning", "copies of another file", "remove them; each copy is trained on like one image more"),
    "near-duplicate": Kind(
        "warning", "nearly the same as another image", "thin out bursts, film frames and resized copies"
    ),
    "dark": Kind("warning", "nearly black", "remove them; there is nothing in them to translate"),
    "overexposed": Kind("warning", "nearly white", "remove them; there is nothing in them to translate"),
    "blank": Kind("warning", "of one plain colour", "remove them; there is nothing in them to translate"),
    "brightness": Kind(
        "note",
        "the domains differ much in brightness",
        "right where they differ in light, as day and night do; else even out the exposure",
        of_folder=True,
    ),
    "misnamed": Kind("note", "of another format than the ending says", "nothing to do here: the content decides"),
    "rotated": Kind("note", "turned by EXIF", "nothing to do: they are read upright"),
    "gray": Kind("note", "gray", "fine if their domain is gray; else its images come out partly gray"),
    "alpha": Kind("note", "with transparency", "transparent parts become white; if that is wrong, fill them yourself"),
    "palette": Kind("note", "with a palette", "they are read as they look; originals of more colours are better"),
    "cmyk": Kind("note", "in the inks of print (CMYK)", "converted by their profile, without one roughly; better: RGB"),
    "16-bit": Kind(
        "note", "of more than 8 bits", "read with 65535 as white; if they come out dark, stretch them beforehand"
    ),
    "animated": Kind("note", "of several frames or pages", "only the first is used; write the others as files"),
}
"""By class, in the order of reports."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a file, or about a training folder."""

    file: str
    """its path, as the system has it: `escape` makes it text"""
    kind: str
    """one of `KINDS`"""
    detail: str = ""
    """what was seen, in printable text"""

    @property
    def level(self) -> str:
        """error, warning or note."""
        return KINDS[self.kind].level


@dataclass(frozen=True)
class FolderFacts:
    """What the images of one domain and purpose are like."""

    path: Path
    images: int
    short_side: int | None = None
    """median, in pixels; None: no image could be read"""
    brightness: tuple[float, float] | None = None
    """mean and standard deviation over the images of their mean gray, 0 … 255; None: not decoded"""


@dataclass(frozen=True)
class Report:
    """What `inspect` found."""

    folders: dict[str, FolderFacts]
    """by trainA, trainB, testA, testB"""
    findings: list[Finding]

    @property
    def usable(self) -> bool:
        """Training would not stop at an image."""
        return all(finding.level != "error" for finding in self.findings)


_FEWEST_IMAGES = 100
_WIDEST = 4  # to 1: cinema is 2.4, a phone's screen 2.2, a film panorama 2.7; beyond are stitched strips and banners
_SHARPNESS_RATIO = 1.25
_BRIGHTNESS_DIFFERENCE = 40  # gray levels of 255

_CELLS = 16  # thumbnails have 16x16 cells
_NEARLY_ALL = 0.9  # of the cells
_BLACK, _WHITE, _PLAIN = 16, 245, 8  # gray levels: darker, brighter, less between the darkest and brightest cell

# Of differences between neighbouring cells. A thousand streets, and 1,384 tiles of satellite images and photographs,
# had no two different ones above 0.88; copies at JPEG quality 30 or at half the size stayed above 0.95. Smooth images
# (a sky, the sea at night) resemble each other up to 0.98, so those of little contrast are left out.
_ALIKE = 0.95  # correlation
_LEAST_CONTRAST = 4.0  # gray levels between neighbouring cells, root mean square

_MANY_HEADERS, _MANY_IMAGES = 20_000, 500  # for these the seconds that processes take to start are well spent


def inspect_headers(datasets: Datasets, config: DataConfig, limit: int | None = None) -> list[Finding]:
    """What the files' headers tell: nothing is decoded, and no process started.

    Some 6,000 files a second; of each folder with more than `limit`, so many are looked at, evenly spread. The embedded
    streets have no files, and no findings.
    """
    folders = _folders(datasets)
    if limit is not None:
        folders = {name: replace(folder, files=_spread(folder.files, limit)) for name, folder in folders.items()}
    return _sorted(_inspect_headers(folders, config, processes=1)[1])


def inspect(datasets: Datasets, config: DataConfig, decode: bool = True) -> Report:
    """Look at the headers of all files and, with `decode`, at all images, on all cores. Depends on the files alone.

    Raises:
        UserError: a process was killed, mostly for want of memory.
    """
    folders, processes = _folders(datasets), min(8, os.cpu_count() or 1)
    looks, findings = _inspect_headers(folders, config, processes)
    facts = {
        name: FolderFacts(folder.root, folder.count, _median_short_side(folder, looks))
        for name, folder in folders.items()
    }
    if decode:
        images, damaged = _decode(looks, config, processes)
        findings += damaged + _odd_light(images) + _copies(folders, images)
        facts = {name: replace(facts[name], brightness=_brightness(folders[name], images)) for name in folders}
        findings += _difference_in_brightness(facts)
    return Report(facts, _sorted(findings))


def describe(findings: Sequence[Finding], named: int = 5) -> str:
    """A line for each class, errors first; below it `named` files at most, but not of a note on several files."""
    lines = []
    for name, kind in KINDS.items():
        group = [finding for finding in findings if finding.kind == name]
        if not group:
            continue
        count = "" if kind.of_folder else f" ({len(group):,} file{'s' * (len(group) > 1)})"
        lines.append(f"{kind.level}: {kind.title}{count}: {kind.advice}")
        shown = [] if kind.level == "note" and len(group) > 1 else group[:named]
        lines += [f"    {escape(finding.file)}{finding.detail and ': ' + finding.detail}" for finding in shown]
        if shown and len(group) > len(shown):
            lines.append(f"    and {len(group) - len(shown):,} more")
    return "\n".join(lines)


# Which files


@dataclass(frozen=True)
class _Folder:
    """The files of one domain and purpose."""

    domain: Domain
    test: bool
    root: Path
    files: Sequence[str]
    count: int
    """of all files, also where `files` are a part of them"""


def _folders(datasets: Datasets) -> dict[str, _Folder]:
    """trainA, trainB, testA, testB, as far as they are folders."""
    found = {}
    for test, sources in ((False, datasets.train), (True, datasets.test.images)):
        for i in Domain:
            source = sources[i]
            if isinstance(source, ImageFolder):
                files = [os.path.join(source.root, name) for name in source.names]  # noqa: PTH118 - ten times as fast
                found[f"{'test' if test else 'train'}{i.upper()}"] = _Folder(i, test, source.root, files, len(files))
    return found


def _spread(files: Sequence[str], limit: int) -> Sequence[str]:
    return files if len(files) <= limit else [files[k * len(files) // limit] for k in range(limit)]


def _sorted(findings: Sequence[Finding]) -> list[Finding]:
    """By class in the order of `KINDS`; within one, in the order they were found."""
    places = {name: place for place, name in enumerate(KINDS)}
    return sorted(findings, key=lambda finding: places[finding.kind])


# Headers


@dataclass(frozen=True, slots=True)
class _Look:
    """What the header of one file says."""

    file: str
    findings: tuple[Finding, ...]
    short_side: int = 0
    bytes: int = 0

    @property
    def readable(self) -> bool:
        return all(finding.level != "error" for finding in self.findings)


def _inspect_headers(
    folders: dict[str, _Folder], config: DataConfig, processes: int
) -> tuple[dict[str, _Look], list[Finding]]:
    """Each file's look, and what was found in files and folders."""
    files = [file for folder in folders.values() for file in folder.files]
    looks = dict(zip(files, _mapped(partial(_look, config), files, processes, _MANY_HEADERS), strict=True))
    findings = [finding for look in looks.values() for finding in look.findings]
    findings += [
        Finding(str(folder.root), "too-few", f"{folder.count} to train on")
        for folder in folders.values()
        if not folder.test and folder.count < _FEWEST_IMAGES
    ]
    return looks, findings + _difference_in_sharpness(folders, looks, config)


def _look(config: DataConfig, file: str) -> _Look:
    try:
        header = read_header(Path(file))
    except ImageError as error:
        return _Look(file, (_unread(file, "unreadable", error),))
    width, height = header.width, header.height
    short, long = sorted((width, height))
    size = f"{width}x{height}"
    seen = {
        "too-large": size if width * height > config.max_pixels else None,
        "too-thin": size if config.load_size**2 * long > MAX_PIXELS * short else None,
        "too-small": size if short < config.crop_size else None,
        "aspect": size if long > _WIDEST * short else None,
        "misnamed": "" if header.misnamed else None,
        "rotated": f"orientation {header.orientation}" if header.orientation in range(2, 9) else None,
        "gray": "" if header.mode in ("1", "L", "LA", "La") or header.mode.startswith("I") else None,
        "alpha": "" if header.transparent else None,
        "palette": "" if header.mode in ("P", "PA") else None,
        "cmyk": "" if header.mode == "CMYK" else None,
        "16-bit": "" if header.deep else None,
        "animated": "" if header.frames else None,
    }
    findings = tuple(Finding(file, kind, detail) for kind, detail in seen.items() if detail is not None)
    return _Look(file, findings, short, header.bytes)


def _unread(file: str, kind: str, error: ImageError) -> Finding:
    return Finding(file, kind, str(error).removeprefix(f"{escape(file)}: "))


def _median_short_side(folder: _Folder, looks: dict[str, _Look]) -> int | None:
    sides = [looks[file].short_side for file in folder.files if looks[file].readable]
    return round(median(sides)) if sides else None


def _difference_in_sharpness(folders: dict[str, _Folder], looks: dict[str, _Look], config: DataConfig) -> list[Finding]:
    """An image shrunk to `load_size` is sharp whatever its size; one enlarged has so much of that sharpness."""
    sides = {name: _median_short_side(folder, looks) for name, folder in folders.items() if not folder.test}
    sharpness = {name: min(1, side / config.load_size) for name, side in sides.items() if side is not None}
    if len(sharpness) < 2 or max(sharpness.values()) < _SHARPNESS_RATIO * min(sharpness.values()):
        return []
    blurred = min(sharpness, key=lambda name: sharpness[name])
    texts = " and ".join(f"{side} px in {name}" for name, side in sides.items())
    detail = f"short sides are {texts} (medians), {config.load_size} px are wanted"
    return [Finding(str(folders[blurred].root), "sharpness", detail)]


# Images

Thumbnail = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _ImageRef:
    """What comparing needs of one image."""

    file: str
    thumbnail: bytes
    """gray, 16x16 cells"""
    digest: bytes | None
    """of the file's content; None where no other file has its size"""


def _decode(looks: dict[str, _Look], config: DataConfig, processes: int) -> tuple[dict[str, _ImageRef], list[Finding]]:
    """The images of all files that can be read, and what was found in the others."""
    sizes = Counter(look.bytes for look in looks.values())
    tasks = [(look.file, sizes[look.bytes] > 1) for look in looks.values() if look.readable]
    images, damaged = {}, []
    for result in _mapped(partial(_image, config), tasks, processes, _MANY_IMAGES):
        if isinstance(result, _ImageRef):
            images[result.file] = result
        else:
            damaged.append(result)
    return images, damaged


def _image(config: DataConfig, task: tuple[str, bool]) -> _ImageRef | Finding:
    file, has_twin = task
    try:
        image = read_image(Path(file), config.max_pixels)
        digest = _digest(file) if has_twin else None
    except ImageError as error:
        return _unread(file, "damaged", error)
    except OSError as error:  # it vanished in between
        return Finding(file, "damaged", f"can't be read ({error.strerror})")
    thumbnail = image.convert("L").resize((_CELLS, _CELLS), Image.Resampling.BOX)
    return _ImageRef(file, thumbnail.tobytes(), digest)


def _digest(file: str) -> bytes:
    with Path(file).open("rb") as content:
        return hashlib.file_digest(content, "blake2b").digest()


def _odd_light(images: dict[str, _ImageRef]) -> list[Finding]:
    findings = []
    for file, image in images.items():
        cells = np.frombuffer(image.thumbnail, np.uint8)
        if (cells < _BLACK).mean() > _NEARLY_ALL:
            findings.append(Finding(file, "dark"))
        elif (cells > _WHITE).mean() > _NEARLY_ALL:
            findings.append(Finding(file, "overexposed"))
        elif int(cells.max()) - int(cells.min()) < _PLAIN:
            findings.append(Finding(file, "blank"))
    return findings


def _brightness(folder: _Folder, images: dict[str, _ImageRef]) -> tuple[float, float] | None:
    means = [np.frombuffer(images[file].thumbnail, np.uint8).mean() for file in folder.files if file in images]
    return (float(np.mean(means)), float(np.std(means))) if means else None


def _difference_in_brightness(facts: dict[str, FolderFacts]) -> list[Finding]:
    means = {name: facts[name].brightness for name in ("trainA", "trainB") if name in facts}
    known = {name: value[0] for name, value in means.items() if value is not None}
    if len(known) < 2 or max(known.values()) - min(known.values()) < _BRIGHTNESS_DIFFERENCE:
        return []
    darker = min(known, key=lambda name: known[name])
    texts = " and ".join(f"{mean:.0f} in {name}" for name, mean in known.items())
    return [Finding(str(facts[darker].path), "brightness", f"mean gray is {texts}, of 255")]


# Copies


def _copies(folders: dict[str, _Folder], images: dict[str, _ImageRef]) -> list[Finding]:
    """Same content in both domains and, within one, same content or nearly the same image."""
    findings = []
    owners: PerDomain[dict[bytes, str]] = PerDomain({}, {})
    for i in Domain:
        files = {
            file: folder.test
            for folder in folders.values()  # training first, so that a copy in the test is the one that is named
            if folder.domain is i
            for file in folder.files
            if file in images
        }
        originals = []
        for file, is_test in files.items():
            digest = images[file].digest
            owner = owners[i].setdefault(digest, file) if digest else file
            if owner == file:
                originals.append(file)
            else:
                leaks = is_test and not files[owner]
                findings.append(Finding(file, "leak" if leaks else "duplicate", f"same file as {escape(owner)}"))
        thumbnails = np.frombuffer(b"".join(images[file].thumbnail for file in originals), np.uint8)
        for file, k in zip(originals, first_alike(thumbnails.reshape(-1, _CELLS, _CELLS)), strict=True):
            if k >= 0:
                leaks = files[file] and not files[originals[k]]
                detail = f"looks like {escape(originals[k])}"
                findings.append(Finding(file, "leak" if leaks else "near-duplicate", detail))
    findings += [
        Finding(owners.b[digest], "in-both", f"same file as {escape(owners.a[digest])}")
        for digest in owners.a.keys() & owners.b.keys()
    ]
    return sorted(findings, key=lambda finding: finding.file)


def first_alike(thumbnails: Thumbnail) -> list[int]:
    """For each of n gray thumbnails (n, 16, 16) the first one before it that looks the same, or -1.

    Compared are the differences between neighbouring cells, so neither size nor brightness nor contrast matter; an edge
    moved by half a cell does, as in a crop of a few percent. Every pair is compared, in tiles of a matrix product: a
    minute for 100,000 (growing with the square), where decoding takes many, and nothing is missed as by hashes.
    """
    count, tile = len(thumbnails), 1024
    cells = thumbnails.astype(np.float32)
    across, down = (np.diff(cells, axis=axis).reshape(count, _CELLS * (_CELLS - 1)) for axis in (2, 1))
    features = np.concatenate([across, down], axis=1)
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    features /= np.maximum(norms, 1e-9)
    features[norms[:, 0] < _LEAST_CONTRAST * features.shape[1] ** 0.5] = 0  # like nothing
    first = np.full(count, -1)
    for start in range(0, count, tile):
        rows, found = features[start : start + tile], first[start : start + tile]
        for before in range(0, start + 1, tile):
            alike = rows @ features[before : before + tile].T >= _ALIKE
            if before == start:
                alike = np.tril(alike, -1)
            new = alike.any(axis=1) & (found < 0)
            found[new] = before + alike[new].argmax(axis=1)
    return [int(k) for k in first]


# Processes


def _mapped(function: Callable[[T], U], items: Sequence[T], processes: int, many: int) -> Iterator[U]:
    """`function` of each item, in their order; of `many` items and more in several processes."""
    bar = partial(tqdm, total=len(items), unit="file", leave=False, disable=not sys.stderr.isatty())
    if processes == 1 or len(items) < many:
        yield from bar(map(function, items))
        return
    # Spawned: a fork would copy the locks that threads of torch and numpy may hold.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=_follow_the_main_process) as pool:
        try:
            yield from bar(pool.map(function, items, chunksize=16))
        except BrokenProcessPool as error:
            raise UserError(
                "a process that looks at images was killed, perhaps for want of memory; close other programs, or look "
                "at the headers alone with --headers"
            ) from error


def _follow_the_main_process() -> None:
    """Leave Ctrl-C to the main process, which ends this one; and end when the main process is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
