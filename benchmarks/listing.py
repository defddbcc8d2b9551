"""Measure the time and memory that listing the training images takes: list, split, digest, order.

    python benchmarks/listing.py --count 1000000

The files are empty, in folders of 1,000, and all but one are of domain A. Memory is the peak beyond that after
importing torch; the order is that of one epoch, image by image, as the loader asks for it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import machine
from unit.config import DataConfig
from unit.data.batches import TrainingImages
from unit.data.datasets import Datasets, open_datasets
from unit.devices import peak_memory
from unit.domains import Domain

CPU = torch.device("cpu")
FILES_PER_FOLDER = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000_000, help="files (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        make_files(Path(root), arguments.count)
        metrics = measure(DataConfig(root=root), arguments.count)
    machine.show(metrics, arguments.json)


def make_files(root: Path, count: int) -> None:
    """trainA with `count` files, trainB with one."""
    for number in range(count):
        folder = root / "trainA" / f"{number // FILES_PER_FOLDER:04d}"
        if number % FILES_PER_FOLDER == 0:
            folder.mkdir(parents=True)
        os.close(os.open(f"{folder}/photo-{number:07d}.jpg", os.O_CREAT))
    (root / "trainB").mkdir()
    (root / "trainB" / "photo.jpg").touch()


def measure(config: DataConfig, count: int) -> dict[str, object]:
    before = peak_memory(CPU) / 1e6
    datasets: list[Datasets] = []
    open_seconds = _seconds(lambda: datasets.append(open_datasets(config)))
    digest_seconds = _seconds(datasets[0].digest)
    listed = peak_memory(CPU) / 1e6
    images = TrainingImages(datasets[0].train, config, 0)
    epoch = range(len(images.sources.a))
    order_seconds = _seconds(lambda: [None for index in epoch if images.index(Domain.A, index) < 0])
    if len(epoch) + len(datasets[0].test.images.a) != count:
        raise RuntimeError("not all images were listed")
    return {
        "files": count,
        "list_and_split_seconds": round(open_seconds, 2),
        "digest_seconds": round(digest_seconds, 2),
        "order_seconds": round(order_seconds, 2),
        "megabytes_before": round(before),
        "list_megabytes": round(listed - before),
        "order_megabytes": round(peak_memory(CPU) / 1e6 - listed),
        **machine.facts(CPU),
    }


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
