"""How well a translator translates held-out pictures, beside doing nothing and beside real pictures."""

from __future__ import annotations

import logging
from typing import TypeAlias

import torch
from torch import Tensor

from unit.config import DataConfig
from unit.data.batches import held_out_image
from unit.data.datasets import HeldOut
from unit.data.source import ImageSource
from unit.domains import Domain, PerDomain
from unit.errors import ImageError
from unit.evaluation.grids import in_row, sample_grid
from unit.evaluation.metrics import PAIRED, paired_figures
from unit.translation.translator import Translator

log = logging.getLogger(__name__)

Figures: TypeAlias = dict[str, dict[str, dict[str, float | None]]]
"""Direction ("a2b"), then "translated", "do_nothing" or "real", then the figure's name."""

GUESSES = ("translated", "do_nothing", "real")
_BATCH = 16


def evaluate(translator: Translator, test: HeldOut) -> Figures:
    """The figures of both directions on aligned test pictures, as training sees them: resized, the middle cut out.

    "do_nothing" takes the input for its own translation; "real" takes, on the embedded streets, the target drawn
    again with other clouds and streaks, the most that a translator can reach, and is None elsewhere.
    """
    assert test.paired
    count, failed = 0, None
    sums = {i.direction: {what: dict.fromkeys(PAIRED, 0.0) for what in GUESSES} for i in Domain}
    for first in range(0, len(test.images.a), _BATCH):
        batch = range(first, first + _BATCH)
        try:
            images = load_held_out(test.images, batch, translator.config.data)
        except ImageError as error:
            if translator.config.data.on_bad_image == "stop":
                raise
            failed = error
            continue
        redrawn = load_held_out(test.redrawn, batch, translator.config.data) if test.redrawn else None
        count += len(images.a)
        for i in Domain:
            guesses = {"translated": translator.translate(images[i], i).cpu(), "do_nothing": images[i]}
            if redrawn:
                guesses["real"] = redrawn[i.other]
            for what, guess in guesses.items():
                for name, mean in paired_figures(guess, images[i.other]).items():
                    sums[i.direction][what][name] += mean * len(guess)
    if failed and not count:
        raise failed
    unknown = () if test.redrawn else ("real",)
    return {
        direction: {
            what: {name: None if what in unknown else value / count for name, value in values.items()}
            for what, values in groups.items()
        }
        for direction, groups in sums.items()
    }


def load_held_out(
    sources: PerDomain[ImageSource], indices: range, data: DataConfig, at_most: int | None = None
) -> PerDomain[Tensor]:
    """(n, 3, crop, crop) of each domain, the pictures of the first `at_most` `indices`, as far as there are any.

    Where `data.on_bad_image` is "skip", an index with a picture that can't be read is left out of both domains, so that
    pairs stay pairs.

    Raises:
        ImageError: a picture can't be read, or none of a domain's can.
    """
    loaded: PerDomain[list[Tensor]] = PerDomain([], [])
    failed: ImageError | None = None
    for k in indices:
        if at_most is not None and max(map(len, loaded)) >= at_most:
            break
        try:
            images = sources.map(lambda source: [held_out_image(source, k, data)] if k < len(source) else [])  # noqa: B023
        except ImageError as error:
            if data.on_bad_image == "stop":
                raise
            log.warning("%s; skipped", error)
            failed = error
            continue
        for i in Domain:
            loaded[i].extend(images[i])
    if failed and not all(loaded):
        raise failed
    return loaded.map(torch.stack)


def _all(test: HeldOut) -> range:
    return range(max(test.images.map(len)))


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
    """(3, H, W) in [-1, 1]: for the first pairs, input, translation and the real other picture; a block a direction."""
    images = load_held_out(test.images, _all(test), translator.config.data, rows)
    return in_row(
        [sample_grid([images[i], translator.translate(images[i], i).cpu(), images[i.other]], blocks=1) for i in Domain],
        gap=12,
    )


def sample_grids(translator: Translator, test: HeldOut, rows: int = 8) -> PerDomain[Tensor]:
    """(3, H, W) in [-1, 1] of each direction: input, translation, cycle, reconstruction of the first pictures."""
    images = load_held_out(test.images, _all(test), translator.config.data, rows)

    def grid(i: Domain) -> Tensor:
        translation = translator.translate(images[i], i)
        cycle, reconstruction = translator.translate(translation, i.other), translator.reconstruct(images[i], i)
        return sample_grid([images[i], translation, cycle, reconstruction])

    return PerDomain.of(grid)
