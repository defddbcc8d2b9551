"""A few digits in the files of MNIST, USPS and SVHN: a class is a bright bar in a place of its own."""

from __future__ import annotations

import bz2
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

COUNTS = {"train": 40, "test": 20}


def pixels(labels: np.ndarray[Any, Any], size: int, seed: int) -> np.ndarray[Any, Any]:
    """Images (N, size, size) of 8 bits: noise, and a bar of a tenth of the height at the label's place."""
    images = np.random.default_rng(seed).integers(0, 40, (len(labels), size, size), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        top = label * size // 10
        image[top : top + max(size // 10, 1), 2:-2] = 250
    return images


def labels(count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).permutation(np.arange(count) % 10)


def write_mnist(root: Path, train_labels: np.ndarray[Any, Any] | None = None) -> None:
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", COUNTS["train"]), ("t10k", COUNTS["test"])):
        of = labels(count)
        images = pixels(of, 28, 1)
        written = train_labels if split == "train" and train_labels is not None else of
        (folder / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, count, 28, 28) + images.tobytes())
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(
            struct.pack(">2i", 2049, count) + written.astype(np.uint8).tobytes()
        )


def write_usps(root: Path, train_labels: np.ndarray[Any, Any] | None = None) -> None:
    (root / "USPS").mkdir(parents=True, exist_ok=True)
    for split, count, name in (("train", COUNTS["train"], "usps.bz2"), ("test", COUNTS["test"], "usps.t.bz2")):
        of = labels(count)
        images = pixels(of, 16, 2).reshape(count, 256) / 127.5 - 1
        written = train_labels if split == "train" and train_labels is not None else of
        lines = [
            f"{label + 1} " + " ".join(f"{k}:{value:.6f}" for k, value in enumerate(image, 1)) + " \n"
            for label, image in zip(written, images, strict=True)
        ]
        (root / "USPS" / name).write_bytes(bz2.compress("".join(lines).encode()))


def write_svhn(root: Path, patch: pytest.MonkeyPatch) -> None:
    """Write SVHN's files; torchvision knows the checksums of the real ones, and is told to accept any."""
    scipy_io = pytest.importorskip("scipy.io")
    from torchvision.datasets import SVHN

    (root / "SVHN").mkdir(parents=True, exist_ok=True)
    for split, count in (("extra", COUNTS["train"]), ("test", COUNTS["test"])):
        of = labels(count)
        images = np.stack([pixels(of, 32, seed) for seed in (3, 4, 5)], axis=-1)  # (N, 32, 32, 3)
        content = {"X": images.transpose(1, 2, 3, 0), "y": np.where(of == 0, 10, of)[:, None].astype(np.uint8)}
        scipy_io.savemat(root / "SVHN" / f"{split}_32x32.mat", content)
    patch.setattr(SVHN, "split_list", {key: [*files[:2], None] for key, files in SVHN.split_list.items()})
