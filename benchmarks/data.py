"""Measure how many images a second the loader gives, and how long training steps of a given length wait for them.

    python benchmarks/data.py --step_seconds 0.1

The photos are JPEG files of 1280x720, about 200 KB each, in two folders: 24 different ones (drawings under noise of all
sizes), hard-linked under many names, so they are read from the page cache. `data_wait_fraction` is the share of an
epoch that is spent waiting, where each step takes `step_seconds` in which the CPU is free, as with a GPU; without that,
all of it is. With a GPU, batches are pinned and copied to it during the steps, as in training.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import machine
from unit.config import Config
from unit.config_file import read_config
from unit.data.bad_images import BadImages
from unit.data.batches import TrainingImages, training_batches
from unit.data.folders import ImageFolder
from unit.devices import resolve_device
from unit.domains import Domain, PerDomain
from unit.streets import Streets, Weather

DISTINCT = 24
WIDTH, HEIGHT = 1280, 720


def main() -> None:
    arguments = _parser().parse_args()
    config = _config(arguments)
    with tempfile.TemporaryDirectory() as root:
        folders = make_photos(Path(root), arguments.count)
        metrics = measure(folders, config, arguments.step_seconds, resolve_device("auto"))
    machine.show(metrics, arguments.json)


def make_photos(root: Path, count: int) -> PerDomain[Path]:
    """Two folders with `count` photos in all."""
    folders = PerDomain.of(lambda i: root / i)
    for i, weather in ((Domain.A, Weather.SUNNY), (Domain.B, Weather.RAINY)):
        folders[i].mkdir()
        distinct = min(DISTINCT, count) // 2
        drawings = Streets(weather, f"train{i.upper()}", distinct, WIDTH)
        for k in range(distinct):
            _photo(drawings.image(k), k).save(root / f"{i}{k}.jpg", quality=90)
        for k in range(count // 2):
            os.link(root / f"{i}{k % distinct}.jpg", folders[i] / f"{k}.jpg")
    return folders


def _photo(drawing: Image.Image, seed: int) -> Image.Image:
    """The middle of a drawing under noise of all sizes, which takes as many bytes of JPEG as a photo."""
    rng = np.random.default_rng(seed)
    top = (drawing.height - HEIGHT) // 2
    levels = np.asarray(drawing.crop((0, top, WIDTH, top + HEIGHT))).astype(np.float32)
    for cell, strength in ((1, 2), (2, 3), (4, 4), (8, 5)):
        noise = rng.normal(0, strength, (HEIGHT // cell, WIDTH // cell)).astype(np.float32)
        levels += np.asarray(Image.fromarray(noise).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))[..., None]
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))


def measure(folders: PerDomain[Path], config: Config, step_seconds: float, device: torch.device) -> dict[str, object]:
    sources = folders.map(ImageFolder.open)
    sizes = [path.stat().st_size for i in Domain for path in folders[i].iterdir()]
    images = TrainingImages(PerDomain(sources.a, sources.b), config.data, config.train.seed)
    images_per_second, data_wait_fraction = _run_epoch(images, config, step_seconds, device)
    return {
        "images_per_second": images_per_second,
        "data_wait_fraction": data_wait_fraction,
        "step_seconds": step_seconds,
        "workers": config.data.workers,
        "batch_size": config.train.batch_size,
        "load_size": config.data.load_size,
        "photos": len(sizes),
        "mean_kilobytes": sum(sizes) / len(sizes) / 1000,
        "device": str(device),
        **machine.facts(device),
    }


def _run_epoch(
    images: TrainingImages, config: Config, step_seconds: float, device: torch.device
) -> tuple[float, float]:
    """Return images a second and the share of time spent waiting, both after the first batch, which starts workers."""
    batch = config.train.batch_size
    count = len(images.sources.a) // batch
    bad = BadImages(images.sources.map(len))
    sample_indices = (range(step * batch, (step + 1) * batch) for step in range(count))
    batches = training_batches(images, bad, sample_indices, config.data.workers or 0, device)
    next(batches)
    waited, start = 0.0, time.perf_counter()
    for _ in range(1, count):
        time.sleep(step_seconds)
        asked = time.perf_counter()
        next(batches)
        waited += time.perf_counter() - asked
    seconds = time.perf_counter() - start
    batches.close()
    return 2 * batch * (count - 1) / seconds, waited / seconds


def _config(arguments: argparse.Namespace) -> Config:
    config = read_config(arguments.config)
    return replace(config, data=replace(config.data, workers=arguments.workers))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    preset = Path(__file__).resolve().parents[1] / "configs" / "photos.yaml"
    parser.add_argument("--config", type=Path, default=preset, help="a preset or run's config.yaml (default: photos)")
    workers = min(4, os.cpu_count() or 1)
    parser.add_argument("--workers", type=int, default=workers, help="default: %(default)s, as training on a GPU here")
    parser.add_argument("--count", type=int, default=2000, help="photos in both folders (default: %(default)s)")
    parser.add_argument("--step_seconds", type=float, default=0.0, help="how long a step takes (default: no time)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    main()
