"""How well a classifier of digits does, and grids of translated digits beside the classes that they should keep."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from unit.data.digit_batches import to_tensors
from unit.digits.config import CLASSES, AdaptationConfig
from unit.digits.source import Digits
from unit.domains import Domain, PerDomain
from unit.images import to_image, to_tensor
from unit.model.adaptation import translate_digits
from unit.model.digit_networks import ClassifyingDiscriminators
from unit.model.networks import Autoencoders

_BATCH = 500
_CELL = 56
"""Pixels of a digit in a grid."""
_BAND = 22
"""Pixels of a row of captions."""
_GREEN, _RED = (0, 110, 0), (200, 0, 0)


def tested_domain(config: AdaptationConfig) -> Domain:
    """Return the domain whose classifier is applied to the target: the source's if nothing was adapted."""
    return Domain.A if config.data.labels == "source" and not config.loss.adversarial else Domain.B


def accuracy(classifier: ClassifyingDiscriminators, digits: Digits, domain: Domain, channels: int) -> float:
    """Return the share of all of a set's images that the classifier of a domain gets right, in fp32.

    Args:
        channels: those of the domain; images of the other kind are converted, for the classifier of the source alone.
    """
    labels = digits.labels
    assert isinstance(labels, np.ndarray)
    device = next(classifier.parameters()).device
    with torch.no_grad():
        guesses = [guess(classifier, x, domain, channels).cpu().numpy() for x in _parts(digits, device)]
    return float((np.concatenate(guesses) == labels).mean())


def guess(classifier: ClassifyingDiscriminators, images: Tensor, domain: Domain, channels: int) -> Tensor:
    """Return the classes (B,) that the classifier of a domain sees in images (B, any channels, H, W)."""
    if images.shape[1] != channels:
        images = images.mean(1, keepdim=True).expand(-1, channels, -1, -1)
    return classifier.classify(images, domain).argmax(1)


def _parts(digits: Digits, device: torch.device) -> Iterator[Tensor]:
    for start in range(0, len(digits), _BATCH):
        yield to_tensors(digits.pixels[start : start + _BATCH], device)


def digit_grids(
    networks: Autoencoders, classifier: ClassifyingDiscriminators, test: PerDomain[Digits], rows: int = 4
) -> PerDomain[Tensor]:
    """Translate test digits of each class in both directions.

    Returns:
        (3, H, W) in [-1, 1] for each direction: a column for each class, headed by it; in pairs of rows, digits and
        their translations; below a translation the class that the classifier of its domain sees, red if it is not the
        heading's.
    """
    was_training = networks.training
    networks.eval()
    try:
        with torch.no_grad():
            return PerDomain.of(lambda i: _digit_grid(networks, classifier, test[i], i, rows))
    finally:
        networks.train(was_training)


def _digit_grid(
    networks: Autoencoders, classifier: ClassifyingDiscriminators, digits: Digits, i: Domain, rows: int
) -> Tensor:
    assert isinstance(digits.labels, np.ndarray)
    found = [np.flatnonzero(digits.labels == digit)[:rows] for digit in range(CLASSES)]
    images = to_tensors(digits.pixels[np.concatenate(found)], next(classifier.parameters()).device)
    translations = translate_digits(networks, images, i)
    seen = guess(classifier, translations, i.other, translations.shape[1]).tolist()
    blank = Image.new("RGB", (_CELL, 2 * _CELL + _BAND), "white")
    cells = [[_heading(digit) for digit in range(CLASSES)]]
    starts = np.cumsum([0, *(len(places) for places in found)])
    for row in range(rows):
        places = [int(start) + row if row < len(of) else None for start, of in zip(starts, found, strict=False)]
        cells.append(
            [
                blank if k is None else _cell(images[k], translations[k], seen[k], seen[k] == digit)
                for digit, k in enumerate(places)
            ]
        )
    return to_tensor(_stacked(cells))


def _heading(digit: int) -> Image.Image:
    return _caption(str(digit), "black")


def _cell(image: Tensor, translation: Tensor, seen: int, right: bool) -> Image.Image:
    cell = Image.new("RGB", (_CELL, 2 * _CELL + _BAND), "white")
    for k, tensor in enumerate((image, translation)):
        digit = to_image(tensor.float().cpu().expand(3, -1, -1)).resize(
            (_CELL - 2, _CELL - 2), Image.Resampling.NEAREST
        )
        cell.paste(digit, (1, k * _CELL + 1))
    cell.paste(_caption(str(seen), _GREEN if right else _RED), (0, 2 * _CELL))
    return cell


def _caption(text: str, color: str | tuple[int, int, int]) -> Image.Image:
    band = Image.new("RGB", (_CELL, _BAND), "white")
    ImageDraw.Draw(band).text((_CELL / 2, _BAND - 4), text, color, ImageFont.load_default(16), anchor="ms")
    return band


def _stacked(cells: list[list[Image.Image]]) -> Image.Image:
    """Lay rows of equally wide cells below one another; all cells of a row are equally high."""
    heights = [row[0].height for row in cells]
    sheet = Image.new("RGB", (_CELL * CLASSES, sum(heights)), "white")
    for row, top in zip(cells, np.cumsum([0, *heights[:-1]]), strict=True):
        for k, cell in enumerate(row):
            sheet.paste(cell, (k * _CELL, int(top)))
    return sheet
