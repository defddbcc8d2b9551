"""How well a translator translates held-out pictures, beside doing nothing and beside real pictures."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor

from unit.data.batches import held_out_image
from unit.data.datasets import HeldOut
from unit.data.source import ImageSource
from unit.domains import Domain, PerDomain
from unit.evaluation.grids import sample_grid
from unit.evaluation.metrics import PAIRED, paired_figures
from unit.translation.translator import Translator

Figures: TypeAlias = dict[str, dict[str, dict[str, float | None]]]
"""Direction ("a2b"), then "translated", "do_nothing" or "real", then the figure's name."""


def evaluate(translator: Translator, test: HeldOut, batch_size: int = 16) -> Figures:
    """The figures of both directions on aligned test pictures, as training sees them: resized, the middle cut out.

    "do_nothing" takes the input for its own translation; "real" takes, on the embedded streets, the target drawn
    again with other clouds and streaks, the most that a translator can reach, and is None elsewhere.
    """
    assert test.paired
    images = _load(test.images, translator)
    redrawn = _load(test.redrawn, translator) if test.redrawn else None
    figures: Figures = {}
    for source in Domain:
        batches = images[source].split(batch_size)
        translated = torch.cat([translator.translate(batch, source).cpu() for batch in batches])
        target = images[source.other]
        figures[source.direction] = {
            "translated": {**paired_figures(translated, target)},
            "do_nothing": {**paired_figures(images[source], target)},
            "real": {**paired_figures(redrawn[source.other], target)} if redrawn else dict.fromkeys(PAIRED),
        }
    return figures


def _load(sources: PerDomain[ImageSource], translator: Translator, most: int | None = None) -> PerDomain[Tensor]:
    """(n, 3, crop, crop) of each domain."""
    data = translator.config.data

    def load(source: ImageSource) -> Tensor:
        count = len(source) if most is None else min(most, len(source))
        return torch.stack([held_out_image(source, index, data) for index in range(count)])

    return sources.map(load)


def table(figures: Figures, names: PerDomain[str]) -> str:
    """The figures as lines of text."""
    lines = [f"{'on held-out pairs':<28}{'PSNR dB':>10}{'SSIM':>10}"]
    rows = {"translated": "translated", "do_nothing": "input left as it is", "real": "drawn again (the ceiling)"}
    for domain in Domain:
        lines.append(f"{names[domain]} to {names[domain.other]}")
        for key, label in rows.items():
            values = figures[domain.direction][key]
            if None not in values.values():
                lines.append(f"  {label:<26}{values['psnr']:10.2f}{values['ssim']:10.3f}")
    return "\n".join(lines)


def contact_sheet(translator: Translator, test: HeldOut, rows: int = 8) -> Tensor:
    """(3, H, W) in [-1, 1]: for the first pairs and both directions, input, translation and the real other picture."""
    images = _load(test.images, translator, rows)
    halves = [
        column
        for source in Domain
        for column in (images[source], translator.translate(images[source], source).cpu(), images[source.other])
    ]
    return sample_grid(halves)
