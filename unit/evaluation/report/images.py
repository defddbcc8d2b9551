"""The images of a report: small enough for one file, and the best and worst of what was held out."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor

from unit.data.batches import held_out_image
from unit.domains import Domain, PerDomain
from unit.errors import ImageError, ModelError, escape
from unit.evaluation import metrics
from unit.evaluation.held_out import readable
from unit.evaluation.report.page import element
from unit.evaluation.report.run import Run
from unit.images import read_image, to_image
from unit.translation.translator import MODEL_FILE

_QUALITY = 85
_MOST_FRAMES = 40
_BYTES_OF_FRAMES = 5_000_000
_FRAME_SIDE = 1200
_MOST_RATED = 500


@dataclass(frozen=True)
class Rated:
    """A held-out image, and how good its translation is."""

    index: int
    score: float


def image_element(image: Image.Image, alt: str, longest: int = 256, **attributes: object) -> str:
    """An <img> that brings its image along, no side longer than `longest`."""
    small = image.copy()
    small.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    width, height = small.size
    return element("img", src=_uri(_webp(small)), alt=alt, width=width, height=height, **attributes)


def _webp(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "WEBP", quality=_QUALITY)
    return content.getvalue()


def _uri(webp: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(webp).decode()}"


# The samples that the run drew


def sample_steps(run: Path) -> list[tuple[int, Path]]:
    """(step, file) of the sample sheets, the first step first."""
    folder = run / "samples"
    found = [(re.fullmatch(r"step-(\d{1,18})\.png", path.name, re.ASCII), path) for path in _listed(folder)]
    return sorted((int(match[1]), path) for match, path in found if match)


def _listed(folder: Path) -> list[Path]:
    with suppress(OSError):
        return list(folder.iterdir())
    return []


def frames(steps: list[tuple[int, Path]]) -> list[tuple[int, str]]:
    """(step, <img>) of some sheets, the first and the last among them: as many as make no more than some 5 MB."""
    size = next((len(frame) for _, frame in _frames(steps[::-1])), 1)
    return list(_frames(evenly(steps, max(2, min(_MOST_FRAMES, _BYTES_OF_FRAMES // size)))))


def _frames(steps: list[tuple[int, Path]]) -> Iterator[tuple[int, str]]:
    """Those that can be read: the last may just be written."""
    for step, path in steps:
        with suppress(ImageError):
            yield step, image_element(read_image(path), f"samples of step {step:,}", _FRAME_SIDE, data_step=step)


def evenly(items: list[tuple[int, Path]], count: int) -> list[tuple[int, Path]]:
    """At most `count` of the items, two or more, the first and the last among them."""
    if len(items) <= count:
        return items
    return [items[k * (len(items) - 1) // (count - 1)] for k in range(count)]


# The held-out images


def rated(run: Run) -> PerDomain[list[Rated]]:
    """The held-out images of both domains, at most 500 evenly spread, with their translations' scores.

    Of aligned pairs that is the SSIM with the real other image; else the PSNR in dB, beside the input, of what comes
    back from the translation. Unreadable images are passed over.
    """
    test = run.datasets.test
    chosen = test.images.map(lambda source: range(0, len(source), -(-len(source) // _MOST_RATED)))
    found: PerDomain[list[Rated]] = PerDomain([], [])
    failures: list[ImageError] = []
    for k, images in readable(test.images, PerDomain(chosen.a, chosen.b), run.data, failures):
        for i in Domain:
            for image in images[i]:
                truth = images[i.other][0] if test.paired else None
                found[i].append(Rated(chosen[i][k], _score(run, i, image, truth)))
    if failures and not all(found):
        raise failures[-1]
    return found


def score_name(run: Run) -> str:
    """What `rated` rates by; higher is better."""
    return "SSIM" if run.datasets.test.paired and _has_ssim(run) else "PSNR in dB"


def _has_ssim(run: Run) -> bool:
    return run.data.crop_size >= metrics.SSIM_WINDOW


def _score(run: Run, i: Domain, image: Tensor, truth: Tensor | None) -> float:
    translation = _translated(run, i, image)
    if truth is None:
        return metrics.psnr(run.translator.translate(translation, i.other).cpu(), image[None])
    measure = metrics.ssim if _has_ssim(run) else metrics.psnr
    return measure(translation, truth[None])


def _translated(run: Run, i: Domain, image: Tensor) -> Tensor:
    """(1, 3, H, W); raises `ModelError` when there is nothing to see in it."""
    translation = run.translator.translate(image[None], i).cpu()
    if not translation.isfinite().all():
        raise ModelError(f"{escape(run.path / MODEL_FILE)}: its translations hold values that are no finite numbers")
    return translation


def worst_and_best(ratings: list[Rated], count: int) -> tuple[list[Rated], list[Rated]]:
    """At most `count` from either end, the extreme one first; none is in both."""
    ordered = sorted(ratings, key=lambda rating: (rating.score, rating.index))
    count = min(count, len(ordered) // 2)
    return ordered[:count], ordered[::-1][:count]


def side_by_side(run: Run, i: Domain, index: int) -> list[Image.Image]:
    """A held-out image, its translation and, of a pair, the real one."""
    test = run.datasets.test
    image = held_out_image(test.images[i], index, run.data)
    images = [image, _translated(run, i, image)[0]]
    if test.paired:
        images.append(held_out_image(test.images[i.other], index, run.data))
    return [to_image(each) for each in images]
