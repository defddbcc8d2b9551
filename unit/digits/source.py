"""MNIST, USPS and SVHN as sources of labelled images, read by torchvision."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unit.digits.config import CLASSES
from unit.errors import ConfigError, DataError, escape
from unit.image_source import ImageSource

_MNIST = {split: [f"{split}-images-idx3-ubyte", f"{split}-labels-idx1-ubyte"] for split in ("train", "t10k")}
_FILES = {
    # torchvision wants all of MNIST's files, whichever half is read
    ("mnist", "train"): [f"MNIST/raw/{name}" for names in _MNIST.values() for name in names],
    ("mnist", "test"): [f"MNIST/raw/{name}" for names in _MNIST.values() for name in names],
    ("usps", "train"): ["USPS/usps.bz2"],
    ("usps", "test"): ["USPS/usps.t.bz2"],
    ("svhn", "train"): ["SVHN/extra_32x32.mat"],  # as in the release: 531,131 images
    ("svhn", "test"): ["SVHN/test_32x32.mat"],
}
"""Below the root folder, by set and split."""


@dataclass(frozen=True)
class Digits(ImageSource):
    """Images of one split of one set, in memory."""

    set_name: str
    split: str
    pixels: np.ndarray[Any, np.dtype[np.uint8]]
    """(N, C, size, size)"""
    labels: np.ndarray[Any, np.dtype[np.int64]] | None
    """(N,), the digit in each image; None: training may not know them"""
    paths: Sequence[Path] = ()
    inverted_too: bool = False
    """the second half of the images are those of the first with black and white exchanged"""

    def __len__(self) -> int:
        return len(self.pixels) * (2 if self.inverted_too else 1)

    def batch(
        self, indices: Sequence[int]
    ) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], np.ndarray[Any, np.dtype[np.int64]] | None]:
        """Return images (B, C, size, size) and their labels (B,), None if they are not known."""
        inverted, places = np.divmod(np.asarray(indices), len(self.pixels))
        pixels = self.pixels[places]
        pixels[inverted == 1] = 255 - pixels[inverted == 1]
        return pixels, None if self.labels is None else self.labels[places]

    def name(self, index: int) -> str:
        """Return a name such as "usps-train-00042"."""
        return f"{self.set_name}-{self.split}-{index:05d}"

    def image(self, index: int, short_side: int | None = None) -> Image.Image:
        """Return the image in RGB."""
        channels = np.broadcast_to(self.batch([index])[0][0], (3, *self.pixels.shape[2:]))
        return Image.fromarray(np.ascontiguousarray(channels.transpose(1, 2, 0)))

    def stats(self) -> Iterable[tuple[int, int]]:
        """Return the size and modification time of the files that hold all images."""
        return [(status.st_size, status.st_mtime_ns) for status in map(os.stat, self.paths)]


def require_digits(root: Path, name: str) -> None:
    """Raise DataError if a file of a set is missing; torch is not imported."""
    for split in ("train", "test"):
        for path in (root / file for file in _FILES[name, split]):
            if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises for some names
                raise DataError(f"{escape(path)}: no such file; add --download, or give another --root")


def open_digits(
    root: Path, name: str, split: str, size: int, *, labelled: bool = True, download: bool = False
) -> Digits:
    """Read a split of a set, scaled to `size` (bilinear).

    Args:
        root: folder in torchvision's layout.
        name: of `unit.digits.config.SETS`.
        split: "train" or "test".
        size: side in pixels.
        labelled: keep the labels; without, they are gone as soon as the file is read.
        download: fetch what is missing.

    Raises:
        DataError: a file is missing, damaged or can't be fetched.
        ConfigError: SVHN's files need SciPy, which is not installed.
    """
    paths = [root / file for file in _FILES[name, split]]
    if not download:
        require_digits(root, name)
    where = escape(paths[0].parent)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            pixels, labels = _read(root, name, split, download)
    except ImportError as error:
        raise ConfigError(f"the package {error.name} is not installed, which SVHN needs; pip install scipy") from error
    except Exception as error:  # torchvision raises anything for a damaged file or a failed download
        reason = escape(" ".join(str(error).split()))[:200] or type(error).__name__
        advice = "try again later" if download else "delete what is damaged there, and add --download"
        raise DataError(f"{where}: {name}'s {split} images can't be read ({reason}); {advice}") from error
    fits = pixels.ndim == 4 and len(pixels) == len(labels) > 0 and pixels.dtype == np.uint8
    if not fits or labels.min() < 0 or labels.max() >= CLASSES:
        raise DataError(f"{where}: {name}'s {split} images and labels do not fit each other; delete and --download")
    return Digits(name, split, _resized(pixels, size), labels if labelled else None, tuple(paths))


def _read(root: Path, name: str, split: str, download: bool) -> tuple[Any, Any]:
    from torchvision import datasets  # takes seconds

    training = split == "train"
    if name == "mnist":
        mnist = datasets.MNIST(root, training, download=download)
        return mnist.data.numpy()[:, None], mnist.targets.numpy()
    if name == "usps":
        (root / "USPS").mkdir(parents=True, exist_ok=True) if download else None
        usps = datasets.USPS(root / "USPS", training, download=download)
        return usps.data[:, None], np.array(usps.targets, dtype=np.int64)
    svhn = datasets.SVHN(root / "SVHN", "extra" if training else "test", download=download)
    return svhn.data, svhn.labels


def _resized(pixels: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    import torch
    from torch.nn import functional

    if pixels.shape[2:] == (size, size):
        return pixels
    parts = torch.from_numpy(pixels).split(10_000)  # in parts, since floats take four times the memory
    scaled = [functional.interpolate(part.float(), (size, size), mode="bilinear", antialias=True) for part in parts]
    resized: np.ndarray[Any, np.dtype[np.uint8]] = torch.cat([part.round().byte() for part in scaled]).numpy()
    return resized
