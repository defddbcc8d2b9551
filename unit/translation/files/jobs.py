"""Find the images to translate, and name the files to write."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import Literal

from unit.errors import ConfigError, DataError, escape
from unit.files import is_partial
from unit.images import SUFFIXES, is_marked
from unit.images.formats import HEIC_SUFFIXES
from unit.images.heic import MISSING, is_installed
from unit.listing import files_below, list_images

is_folder = os.path.isdir  # before Python 3.14, Path.is_dir raises for names that are too long


@dataclass(frozen=True)
class Job:
    """An image to read and the files to write, one per sample."""

    input: Path
    outputs: tuple[Path, ...]
    folder: Path | None = None
    """where all outputs must lie, even through links; None: the user named the output itself"""
    doubt: Path | None = None
    """another image, whose translation the existing outputs seem to be: it had their names before this one came"""


@dataclass(frozen=True)
class Outcome:
    """The result for one input."""

    input: str
    status: Literal["done", "skipped", "failed"]
    outputs: tuple[Path, ...] = ()
    size: tuple[int, int] | None = None
    """width and height of input and outputs"""
    reason: str | None = None
    """why it was skipped or failed"""
    lost: tuple[str, ...] = ()
    """names of what the input holds but the outputs don't"""


def image_suffixes() -> frozenset[str]:
    """Return the suffixes of images that can be translated, in lower case."""
    return SUFFIXES | HEIC_SUFFIXES if is_installed() else SUFFIXES


def find_images(
    inputs: Sequence[str], out: Path | None = None
) -> tuple[list[tuple[Path, PurePosixPath]], list[Outcome]]:
    """Find the images in files, folders (recursively) and glob patterns.

    A folder's images keep their relative path, below the folder's name if there are several folders. Earlier outputs
    are left out: images in `out` that are marked as outputs, and all that are there if it lies below a given folder.

    Returns:
        (path, relative path of the output) of each image, and the inputs that failed.

    Raises:
        ConfigError: a file needs a package that isn't installed.
    """
    images: dict[str, tuple[Path, PurePosixPath]] = {}  # by absolute path: a file given twice is one image
    failed: list[Outcome] = []
    out_folder = os.path.realpath(out) if out and is_folder(out) else None
    several = len({os.path.realpath(text) for text in inputs if is_folder(text)}) > 1
    for text in inputs:
        try:
            if is_folder(text):
                top = PurePosixPath(Path(text).resolve().name if several else "")
                names = list_images(Path(text), suffixes=image_suffixes())
                files = [(Path(text, name), top / name) for name in names]
            else:
                files = [(file, PurePosixPath(file.name)) for file in _matching_files(text) if not is_partial(file)]
        except DataError as error:
            failed.append(Outcome(text, "failed", reason=str(error)))
            continue
        for path, target in without_outputs(files, text, out_folder) if out_folder else files:
            images.setdefault(os.path.abspath(path), (path, target))  # noqa: PTH100 - resolve() would follow links
    if not images and not failed:
        reason = f"{escape(inputs[0])}: no images except earlier outputs in --out; give others, or another --out"
        failed.append(Outcome(inputs[0], "failed", reason=reason))
    return list(images.values()), failed


def without_outputs(
    files: Sequence[tuple[Path, PurePosixPath]], text: str, out: str
) -> list[tuple[Path, PurePosixPath]]:
    """Leave out earlier outputs among the files of `text`: those in the real path `out`, itself or through links."""
    top = os.path.realpath(text)
    out_is_below = out != top and Path(out).is_relative_to(top)

    def is_output(path: Path) -> bool:
        is_there = any(Path(os.path.realpath(place)).is_relative_to(out) for place in (path.parent, path))
        return is_there and (out_is_below or is_marked(path))

    return [file for file in files if not is_output(file[0])]


def _matching_files(text: str) -> list[Path]:
    """List the file of that name, or else those that match it as a pattern."""
    files = [Path(text)] if os.path.lexists(text) else [file for file in sorted(_glob(text)) if not is_folder(file)]
    if not files:
        raise DataError(f"{escape(text) or repr(text)}: no such file or folder, and no file matches it as a pattern")
    heic = next((file for file in files if file.suffix.lower() in HEIC_SUFFIXES), None)
    if heic and not is_installed():
        raise ConfigError(f"{escape(heic)}: {MISSING}")
    return files


def _glob(pattern: str) -> Iterator[Path]:
    parts = Path(pattern).parts
    if "**" not in parts:
        return map(Path, glob.iglob(pattern))  # noqa: PTH207 - Path.glob takes no absolute patterns
    # The "**" of glob follows circular links, and never ends where there are two; that of Path follows none.
    start = parts.index("**")
    tops = filter(is_folder, glob.iglob(str(Path(*parts[:start]))))  # noqa: PTH207
    below = chain.from_iterable(((top, name) for name in files_below(Path(top))) for top in tops)
    return (Path(top, name) for top, name in below if _matches(name.split("/"), parts[start:]))


def _matches(name: Sequence[str], pattern: Sequence[str]) -> bool:
    """Match the parts of a path; "**" stands for any number of them."""

    def skip(position: int) -> Iterator[int]:
        """Yield the positions in the pattern that are reached from this one without a part of the name."""
        yield position
        while position < len(pattern) and pattern[position] == "**":
            position += 1
            yield position

    reached = set(skip(0))  # all at once: trying them one by one takes exponential time
    for part in name:
        stay = {k for k in reached if k < len(pattern) and pattern[k] == "**"}
        step = {k + 1 for k in reached if k < len(pattern) and k not in stay and fnmatch.fnmatch(part, pattern[k])}
        reached = {position for k in stay | step for position in skip(k)}
    return len(pattern) in reached


def plan_jobs(
    images: Sequence[tuple[Path, PurePosixPath]], out: Path, suffix: str | None, samples: int | None
) -> list[Job]:
    """Choose the output files: below `out`, or `out` itself where it names a file and there is one image.

    Args:
        images: from `find_images`.
        out: a folder, or a file for one image, whose own suffix then counts.
        suffix: ".png", ".jpg" or ".webp"; None: the input's own.
        samples: outputs per image, numbered from 1; None: one without a number.

    Raises:
        ConfigError: `out` names a file that is no image, or there are several images or samples for it; or two images
            have the same relative path.
    """
    if out.suffix.lower() in SUFFIXES and not is_folder(out):
        if len(images) > 1 or samples is not None:
            raise ConfigError(f"--out {escape(out)}: one file can't take several images; give a folder")
        return [Job(path, (out,)) for path, _ in images]
    if os.path.lexists(out) and not is_folder(out):
        raise ConfigError(f"--out {escape(out)}: not a folder; give one, or a file that ends in .png, .jpg or .webp")
    if re.fullmatch(r"\.(?!v\d)[A-Za-z][A-Za-z0-9]*", out.suffix) and not is_folder(out):
        raise ConfigError(
            f"--out {escape(out)}: looks like a file, but not an image; give a folder (make it first if this is its "
            "name), or a file that ends in .png, .jpg or .webp"
        )
    owners: dict[PurePosixPath, Path] = {}
    for path, target in images:
        if owners.setdefault(target, path) != path:
            raise ConfigError(
                f"{escape(owners[target])} and {escape(path)} would be written under one name; give the folder "
                "that contains both, or translate one after the other with another --out"
            )
    names_of = _distinct_names(list(owners), suffix, samples)
    outputs = {target: tuple(out / name for name in names_of[target]) for target in owners}
    doubts = _doubts(owners, outputs, suffix)
    return [Job(path, outputs[target], out, doubts.get(target)) for target, path in owners.items()]


def _doubts(
    owners: Mapping[PurePosixPath, Path], outputs: Mapping[PurePosixPath, Sequence[Path]], suffix: str | None
) -> dict[PurePosixPath, Path]:
    """Find existing outputs of an earlier command: x.png without x.jpg.png is that of x.jpg if x.png came later."""
    plain = {target: _fold(target.with_suffix(suffix or target.suffix)) for target in owners}
    claims = Counter(plain.values())
    rivals = [target for target in owners if claims[plain[target]] > 1]
    missing = {plain[target]: owners[target] for target in rivals if not all(map(os.path.lexists, outputs[target]))}
    suspects = [target for target in rivals if plain[target] in missing and _is_newer(owners[target], outputs[target])]
    return {target: missing[plain[target]] for target in suspects}


def _is_newer(image: Path, outputs: Sequence[Path]) -> bool:
    """True if the image came to its place after all outputs were written; False if they are not there."""
    try:
        return image.stat().st_ctime_ns > max(output.stat().st_mtime_ns for output in outputs)
    except OSError:
        return False


def _distinct_names(
    targets: Sequence[PurePosixPath], suffix: str | None, samples: int | None
) -> dict[PurePosixPath, list[PurePosixPath]]:
    """Name the outputs of each image, no two of them alike, even where case makes no difference.

    x.png and x.jpg would both become x.png: the image already called so keeps it, the other becomes x.jpg.png.
    """

    def names(target: PurePosixPath, stem: str) -> list[PurePosixPath]:
        numbers = [""] if samples is None else [f"-{k + 1}" for k in range(samples)]
        return [target.with_name(f"{stem}{number}{suffix or target.suffix}") for number in numbers]

    distinct = {target: names(target, target.stem) for target in targets}
    claims = Counter(_fold(name) for preferred in distinct.values() for name in preferred)
    taken: set[str] = set()
    for target in targets:
        chosen = distinct[target]
        if any(_fold(name) in taken or (claims[_fold(name)] > 1 and _fold(name) != _fold(target)) for name in chosen):
            longer = (names(target, f"{target.name}{f'-{k}' if k > 1 else ''}") for k in count(1))
            chosen = next(names for names in longer if not any(_fold(n) in taken or _fold(n) in claims for n in names))
        distinct[target] = chosen
        taken.update(map(_fold, chosen))
    return distinct


def _fold(name: PurePosixPath) -> str:
    """Map names that some file systems take for one file to the same string."""
    return unicodedata.normalize("NFD", str(name).casefold())
