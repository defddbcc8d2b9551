"""How many images a second the loader gives, and how long a training step of known length would wait for them.

    python benchmarks/data.py --step_seconds 0.1

The photos are JPEG files of 1280x720, some 200 KB each, in two folders: 24 different ones (drawings with noise of all
sizes over them) under many names, linked to one file each, so the system reads them from its memory. Every image is
loaded twice, as in two epochs. `data_wait_fraction` is the share of the second epoch that is spent waiting, where each
step takes `step_seconds` in which the processor is free, as with a GPU; without that, there is nothing but waiting.
Where there is a GPU, batches are pinned and copied to it beside the steps, as in training; else each waits its turn.
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

DIFFERENT = 24
WIDTH, HEIGHT = 1280, 720


def main() -> None:
    arguments = _parser().parse_args()
    config = _config(arguments)
    with tempfile.TemporaryDirectory() as root:
        os.environ["XDG_CACHE_HOME"] = str(Path(root, "cache"))
        folders = make_photos(Path(root), arguments.count)
        metrics = measure(folders, config, arguments.step_seconds, resolve_device("auto"))
    machine.show(metrics, arguments.json)


def make_photos(root: Path, count: int) -> PerDomain[Path]:
    """Two folders with `count` photos in all."""
    folders = PerDomain.of(lambda i: root / i)
    for i, weather in ((Domain.A, Weather.SUNNY), (Domain.B, Weather.RAINY)):
        folders[i].mkdir()
        different = min(DIFFERENT, count) // 2
        drawings = Streets(weather, f"train{i.upper()}", different, WIDTH)
        for k in range(different):
            _photo(drawings.image(k), k).save(root / f"{i}{k}.jpg", quality=90)
        for k in range(count // 2):
            os.link(root / f"{i}{k % different}.jpg", folders[i] / f"{k}.jpg")
    return folders


def _photo(drawing: Image.Image, seed: int) -> Image.Image:
    """The middle of a drawing under noise of all sizes: as many bytes as a photograph has as JPEG."""
    random = np.random.default_rng(seed)
    top = (drawing.height - HEIGHT) // 2
    levels = np.asarray(drawing.crop((0, top, WIDTH, top + HEIGHT))).astype(np.float32)
    for cell, strength in ((1, 2), (2, 3), (4, 4), (8, 5)):
        noise = random.normal(0, strength, (HEIGHT // cell, WIDTH // cell)).astype(np.float32)
        levels += np.asarray(Image.fromarray(noise).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))[..., None]
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))


def measure(folders: PerDomain[Path], config: Config, step_seconds: float, device: torch.device) -> dict[str, object]:
    """The metrics by name."""
    sources = folders.map(ImageFolder.open)
    sizes = [path.stat().st_size for i in Domain for path in folders[i].iterdir()]
    images = TrainingImages(PerDomain(sources.a, sources.b), config.data, config.train.seed)
    first, second = (_epoch(images, config, epoch, step_seconds, device) for epoch in range(2))
    return {
        "images_per_second": second[0],
        "data_wait_fraction": second[1],
        "first_epoch_images_per_second": first[0],
        "first_epoch_data_wait_fraction": first[1],
        "step_seconds": step_seconds,
        "workers": config.data.workers,
        "cache": config.data.cache,
        "batch_size": config.train.batch_size,
        "load_size": config.data.load_size,
        "photos": len(sizes),
        "mean_kilobytes": sum(sizes) / len(sizes) / 1000,
        "device": str(device),
        **machine.facts(device),
    }


def _epoch(
    images: TrainingImages, config: Config, epoch: int, step_seconds: float, device: torch.device
) -> tuple[float, float]:
    """Images a second, and the share of the time spent waiting, both after the first batch, which starts workers."""
    batch = config.train.batch_size
    count = len(images.sources.a) // batch
    steps = range(epoch * count, (epoch + 1) * count)
    bad = BadImages(images.sources.map(len))
    places = (range(step * batch, (step + 1) * batch) for step in steps)
    batches = training_batches(images, bad, places, config.data.workers or 0, device)
    next(batches)
    waited, start = 0.0, time.perf_counter()
    for _ in steps[1:]:
        time.sleep(step_seconds)
        asked = time.perf_counter()
        next(batches)
        waited += time.perf_counter() - asked
    seconds = time.perf_counter() - start
    batches.close()
    return 2 * batch * (count - 1) / seconds, waited / seconds


def _config(arguments: argparse.Namespace) -> Config:
    config = read_config(arguments.config)
    return replace(config, data=replace(config.data, workers=arguments.workers, cache=arguments.cache))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    preset = Path(__file__).resolve().parents[1] / "configs" / "photos.yaml"
    parser.add_argument("--config", type=Path, default=preset, help="a preset or run's config.yaml (default: photos)")
    workers = min(4, os.cpu_count() or 1)
    parser.add_argument("--workers", type=int, default=workers, help="default: %(default)s, as training on a GPU here")
    parser.add_argument("--cache", default="none", choices=("none", "memory", "disk"))
    parser.add_argument("--count", type=int, default=2000, help="photos in both folders (default: %(default)s)")
    parser.add_argument("--step_seconds", type=float, default=0.0, help="how long a step takes (default: no time)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    main()
