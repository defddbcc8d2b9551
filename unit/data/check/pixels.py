"""Checks of the decoded images: damage, exposure, copies."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from unit.config import DataConfig
from unit.data.check.findings import Finding
from unit.data.check.headers import CheckedHeader, read_failure
from unit.data.check.parallel import parallel_map
from unit.errors import ImageError, escape
from unit.images import read_image

_PARALLEL_FROM = 500  # images; fewer are decoded before processes have started
_CELLS = 16  # thumbnails have 16x16 cells
_NEARLY_ALL = 0.9  # of the cells
_BLACK, _WHITE, _PLAIN = 16, 245, 8  # grey levels: darker, brighter, less between the darkest and brightest cell

# Of differences between neighbouring cells. A thousand streets, and 1,384 satellite and other photos, had no two
# different ones above 0.88; copies at JPEG quality 30 or half the size stayed above 0.95. Smooth images (a sky, the sea
# at night) correlate up to 0.98, so those of low contrast are left out.
_MIN_CORRELATION = 0.95
_MIN_CONTRAST = 4.0  # grey levels between neighbouring cells, root mean square

GrayImages = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ImageSummary:
    """The summary of one image that comparisons need."""

    file: str
    cells: GrayImages
    """a grey thumbnail, 16x16"""
    digest: bytes | None
    """hash of the file's content; None if no other file has its size"""


def decode_images(
    headers: Iterable[CheckedHeader], config: DataConfig, processes: int
) -> tuple[dict[str, ImageSummary], list[Finding]]:
    """Decode all readable files; returns the images by file, and the damaged files."""
    readable = [header for header in headers if header.readable]
    sizes = Counter(header.bytes for header in readable)
    tasks = [(header.file, sizes[header.bytes] > 1) for header in readable]
    processes = processes if len(tasks) >= _PARALLEL_FROM else 0
    results = list(parallel_map(partial(_decode, config), tasks, processes))
    images = {result.file: result for result in results if isinstance(result, ImageSummary)}
    return images, [result for result in results if isinstance(result, Finding)]


def _decode(config: DataConfig, task: tuple[str, bool]) -> ImageSummary | Finding:
    file, same_size_exists = task
    try:
        image = read_image(Path(file), config.max_pixels)
        digest = _digest(file) if same_size_exists else None
    except ImageError as error:
        return read_failure(file, "damaged", error)
    except OSError as error:  # it vanished in between
        return Finding(file, "damaged", f"can't be read ({error.strerror})")
    thumbnail = image.convert("L").resize((_CELLS, _CELLS), Image.Resampling.BOX)
    return ImageSummary(file, np.array(thumbnail), digest)


def _digest(file: str) -> bytes:
    with Path(file).open("rb") as content:
        return hashlib.file_digest(content, "blake2b").digest()


def check_exposure(image: ImageSummary) -> list[Finding]:
    """Find an image that is nearly black, nearly white, or one plain colour."""
    checks = {
        "dark": (image.cells < _BLACK).mean() > _NEARLY_ALL,
        "overexposed": (image.cells > _WHITE).mean() > _NEARLY_ALL,
        "blank": np.ptp(image.cells) < _PLAIN,
    }
    return [Finding(image.file, check) for check, failed in checks.items() if failed][:1]


def find_copies(
    is_test: Mapping[str, bool], images: Mapping[str, ImageSummary]
) -> tuple[list[Finding], dict[bytes, str]]:
    """Find equal files and similar images in one domain; returns also the first file of each digest.

    Args:
        is_test: by file, training files first, so that of a pair the test file is the finding.
    """
    findings: list[Finding] = []
    originals: list[ImageSummary] = []
    owners: dict[bytes, str] = {}

    def add(file: str, original: str, check: str, detail: str) -> None:
        leaks = is_test[file] and not is_test[original]
        findings.append(Finding(file, "leak" if leaks else check, f"{detail} {escape(original)}"))

    for image in (images[file] for file in is_test if file in images):
        owner = owners.setdefault(image.digest, image.file) if image.digest else image.file
        if owner == image.file:
            originals.append(image)
        else:
            add(image.file, owner, "duplicate", "same file as")
    thumbnails = np.array([image.cells for image in originals], np.uint8).reshape(-1, _CELLS, _CELLS)
    for image, k in zip(originals, find_similar(thumbnails), strict=True):
        if k >= 0:
            add(image.file, originals[k].file, "near-duplicate", "looks like")
    return findings, owners


def find_similar(thumbnails: GrayImages) -> list[int]:
    """Return, for each of n grey thumbnails (n, 16, 16), the index of the first similar one before it, or -1.

    Compared are the differences between neighbouring cells, so size, brightness and contrast don't matter; an edge
    moved by half a cell does, as in a crop of a few percent. All pairs are compared, in tiles of a matrix product: a
    minute for 100,000 images (quadratic), which take longer to decode, and nothing is missed as with hashes.
    """
    count, tile = len(thumbnails), 1024
    cells = thumbnails.astype(np.float32)
    features = np.concatenate(
        [np.diff(cells, axis=axis).reshape(count, _CELLS * (_CELLS - 1)) for axis in (2, 1)], axis=1
    )
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    features /= np.maximum(norms, 1e-9)
    features[norms[:, 0] < _MIN_CONTRAST * features.shape[1] ** 0.5] = 0  # similar to nothing
    first = np.full(count, -1)
    for start in range(0, count, tile):
        rows, matches = features[start : start + tile], first[start : start + tile]
        for before in range(0, start + 1, tile):
            similar = rows @ features[before : before + tile].T >= _MIN_CORRELATION
            if before == start:
                similar = np.tril(similar, -1)
            new = similar.any(axis=1) & (matches < 0)
            matches[new] = before + similar[new].argmax(axis=1)
    return [int(k) for k in first]
