"""Measure how fast `python -m unit check --headers` reads many files.

    python benchmarks/check.py --count 100000

The folders hold a few dozen different images in the formats of cameras and the web, each under many names (links to
one file), so that making them is quick: files are read from the page cache, as on a second run.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import machine
from unit.config import DataConfig
from unit.data.check import check_folders
from unit.data.datasets import open_datasets

DISTINCT = 36
FORMATS = ("jpg", "jpg", "jpg", "png", "webp", "tif")


def make_folders(root: Path, count: int) -> None:
    """trainA and trainB with `count` files in all."""
    exif = Image.Exif()
    exif[0x0112] = 6
    rng = np.random.default_rng(0)
    for k in range(DISTINCT):
        pixels = rng.integers(0, 256, (30, 40, 3), np.uint8)
        source = root / f"{k}.{FORMATS[k % len(FORMATS)]}"
        Image.fromarray(pixels).resize((640, 480)).save(source, exif=exif)
        for number in range(k, count, DISTINCT):
            folder = root / ("trainA" if number % 2 else "trainB") / f"{number // 1000}"
            folder.mkdir(parents=True, exist_ok=True)
            os.link(source, folder / f"{number}{source.suffix}")


def measure(count: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as root:
        make_folders(Path(root), count)
        config = DataConfig(root=root)
        start = time.perf_counter()
        report = check_folders(open_datasets(config), config, decode=False)
        seconds = time.perf_counter() - start
    if sum(summary.images for summary in report.folders.values()) != count:
        raise RuntimeError("not all images were checked")
    return {
        "files": count,
        "seconds": round(seconds, 2),
        "files_per_second": round(count / seconds),
        **machine.facts(torch.device("cpu")),
        "pillow": PIL.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000, help="files (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    metrics = measure(arguments.count)
    machine.show(metrics, arguments.json)


if __name__ == "__main__":
    main()
