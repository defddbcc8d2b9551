"""The images of a report: sample grids and held-out images, scaled and compressed to fit into one file."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from torch import Tensor

from unit.data.batches import held_out_image
from unit.domains import Domain, PerDomain
from unit.errors import ImageError
from unit.evaluation import metrics
from unit.evaluation.evaluate import affordable_count, resize_like
from unit.evaluation.held_out import naming, readable, run_as_translate
from unit.evaluation.report.run import Run
from unit.images import read_image, to_image

_QUALITY = 85
_MAX_FRAMES = 40
_MAX_FRAME_CHARACTERS = 7_000_000
"""The length of all frames together, in base64."""
_FRAME_SIDE = 1200


@dataclass(frozen=True, order=True)
class ScoredImage:
    """How good the translation of a held-out image is."""

    score: float
    index: int


class Embedded(NamedTuple):
    """The attributes of an <img> that contains its image."""

    src: str
    alt: str
    width: int
    height: int
    title: str = ""


def embed(image: Image.Image, alt: str, max_side: int = 256, title: str = "") -> Embedded:
    """Compress an image to WebP, scaled to fit `max_side`."""
    small, content = image.copy(), io.BytesIO()
    small.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    small.save(content, "WEBP", quality=_QUALITY)
    uri = f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"
    return Embedded(uri, alt, *small.size, title)


# The sample grids that training drew


def frames(run: Path) -> tuple[list[tuple[int, Embedded]], int]:
    """Embed the first, the last and evenly spaced sample grids in between, about 5 MB of them at most.

    Returns:
        (step, image) by step, and the number of grids in the run.
    """
    files = (run / "samples").glob("step-*.png")
    matches = [(re.fullmatch(r"step-(\d{1,18})\.png", file.name, re.ASCII), file) for file in files]
    grids = sorted((int(match[1]), file) for match, file in matches if match)
    size = next((len(frame.src) for _, frame in _frames(grids[::-1])), 1)
    chosen = evenly_spaced(grids, max(2, min(_MAX_FRAMES, _MAX_FRAME_CHARACTERS // size)))
    return list(_frames(chosen)), len(grids)


def _frames(grids: list[tuple[int, Path]]) -> Iterator[tuple[int, Embedded]]:
    """Embed those that are readable: the last may be half written."""
    for step, path in grids:
        with suppress(ImageError):
            yield step, embed(read_image(path), f"samples of step {step:,}", _FRAME_SIDE)


def evenly_spaced(grids: list[tuple[int, Path]], count: int) -> list[tuple[int, Path]]:
    """Choose at most `count` grids, at least two, with the first and the last among them."""
    if len(grids) <= count:
        return grids
    return [grids[k * (len(grids) - 1) // (count - 1)] for k in range(count)]


# The held-out images


def score_images(run: Run) -> PerDomain[list[ScoredImage]]:
    """Score the translations of evenly spaced held-out images of each domain; skip unreadable ones.

    Pairs are scored by the SSIM with the real target (by PSNR where crops are below 11 px), others by the PSNR of the
    cycle in dB.
    """
    test = run.datasets.test
    count = affordable_count(test.images, run.translator, run.size, seconds=run.seconds)
    indices = test.images.map(lambda source: range(0, len(source), -(-len(source) // count)))
    scores: PerDomain[list[ScoredImage]] = PerDomain([], [])
    for k, images in readable(test.images, PerDomain(*indices), run.data, native=True):
        for i in Domain:
            for image in images[i]:
                if score_name(run) == "SSIM" and min(image.shape[1:]) < metrics.SSIM_WINDOW:
                    continue
                truth = images[i.other][0] if test.paired else None
                with naming(test.images[i], indices[i][k]):
                    scores[i].append(ScoredImage(_score(run, i, image[None], truth), indices[i][k]))
    return scores


def score_name(run: Run) -> str:
    """Name the score of `score_images`; higher is better."""
    return "SSIM" if run.datasets.test.paired and run.data.crop_size >= metrics.SSIM_WINDOW else "PSNR in dB"


def _score(run: Run, i: Domain, image: Tensor, truth: Tensor | None) -> float:
    translation = run_as_translate(run.translator.translate, image, i, run.size)
    if truth is None:
        return float(metrics.psnr(run_as_translate(run.translator.translate, translation, i.other, run.size), image))
    metric = metrics.ssim if score_name(run) == "SSIM" else metrics.psnr
    return float(metric(translation, resize_like(truth[None], image)))


def worst_and_best(scores: list[ScoredImage], count: int) -> tuple[list[ScoredImage], list[ScoredImage]]:
    """Choose at most `count` from either end, the most extreme first; none is in both."""
    ordered = sorted(scores)
    count = min(count, len(ordered) // 2)
    return ordered[:count], ordered[::-1][:count]


def side_by_side(run: Run, i: Domain, index: int, max_side: int) -> list[Embedded]:
    """Embed a held-out image, its translation as the verb `translate` writes it and, for pairs, the real target."""
    test = run.datasets.test
    image, name = held_out_image(test.images[i], index, run.data, native=True), test.images[i].name(index)
    with naming(test.images[i], index):
        images = [image, run_as_translate(run.translator.translate, image[None], i, run.size)[0]]
    if test.paired:
        images.append(held_out_image(test.images[i.other], index, run.data, native=True))
    pairs = zip(column_titles(run, i), images, strict=True)
    return [embed(to_image(tensor), f"{title}: {name}", max_side, title=name) for title, tensor in pairs]


def column_titles(run: Run, i: Domain) -> list[str]:
    """Return the headings of `side_by_side`."""
    target = run.names[i.other]
    return [run.names[i], f"→ {target}", *([f"real {target}"] if run.datasets.test.paired else [])]
