"""What is measured, by name, and how it is printed for people."""

from __future__ import annotations

from typing import TypeAlias

from unit.domains import Domain, PerDomain

Metrics: TypeAlias = dict[str, dict[str, dict[str, float | None]]]
"""Direction ("a2b"), then "translated", "do_nothing" or "real", then the metric's name; None: without meaning there."""

PAIRED = ("psnr", "ssim", "feature_distance", "pixel_accuracy")
"""The metrics that need aligned pairs."""

COUNTS = ("images", "reference_images")
"""How many images are behind KID and FID on either side."""

NAMES = (
    *("kid", "kid_low", "kid_high", "fid"),
    *PAIRED,
    *("colour_correlation", "identity_distance", "spread", "cycle_psnr", "reconstruction_psnr"),
    *COUNTS,
)
"""All metrics, as `unit.evaluation.metrics` defines them."""

GUESSES = {"translated": "translated", "do_nothing": "do nothing", "real": "real"}
ROWS = {
    "kid": ("KID x 1000, {features}", "lower", 1, 1),
    "fid": ("FID, {features}", "lower", 1, 2),
    "psnr": ("PSNR, dB", "higher", 1, 2),
    "ssim": ("SSIM", "higher", 1, 3),
    "feature_distance": ("feature distance, {features}", "lower", 1, 3),
    "pixel_accuracy": ("pixels within 16 of 255, %", "higher", 100, 1),
    "colour_correlation": ("colours kept from the input", "as real", 1, 3),
    "identity_distance": ("distance from the input, of 255", "as real", 1, 1),
    "spread": ("spread, the inputs' = 1", "as real", 1, 3),
    "cycle_psnr": ("there and back, PSNR, dB", "higher", 1, 2),
    "reconstruction_psnr": ("reconstructed, PSNR, dB", "higher", 1, 2),
}
"""Figure: its label, what is good, its factor and its decimals."""


def table(metrics: Metrics, names: PerDomain[str], features: str | None = "Lite0") -> str:
    """The metrics as lines of text, 84 columns wide; "better" says where to a metric should go.

    Args:
        metrics: of an `Evaluator`.
        names: what the user calls the domains.
        features: the name of what KID, FID and feature_distance were computed with.
    """
    blocks = [_block(metrics[i.direction], f"{names[i]} to {names[i.other]}", features) for i in Domain]
    return "\n".join([*blocks, *_legend(metrics)])


def _block(groups: dict[str, dict[str, float | None]], heading: str, features: str | None) -> str:
    counts = [f"{groups['translated'][name]:,.0f}" for name in COUNTS]
    heading = f"{heading}, {' images beside '.join(counts)} real"
    lines = [heading, f"  {'':<33}{'better':<10}" + "".join(f"{label:>13}" for label in GUESSES.values())]
    for name, (label, better, factor, decimals) in ROWS.items():
        values = [groups[guess][name] for guess in GUESSES]
        if any(value is not None for value in values):
            cells = "".join(f"{number_text(value, factor, decimals):>13}" for value in values)
            lines.append(f"  {label.format(features=features):<33}{better:<10}{cells}")
        if name == "kid" and values[0] is not None:
            intervals = "".join(f"{interval_text(groups[guess]):>13}" for guess in GUESSES)
            lines.append(f"  {'  95 % of its resamples':<43}{intervals}")
    return "\n".join(line.rstrip() for line in lines)


def number_text(value: float | None, factor: int, decimals: int) -> str:
    """A metric for people, in the unit of its row; nothing for None."""
    return "" if value is None else f"{value * factor:.{decimals}f}"


def interval_text(group: dict[str, float | None]) -> str:
    """KID's interval, nothing where there is none."""
    low, high = group["kid_low"], group["kid_high"]
    return "" if low is None or high is None else f"{low:.0f} to {high:.0f}"


def _legend(metrics: Metrics) -> list[str]:
    """What the last two columns are."""
    groups = metrics[Domain.A.direction]
    real, translated = groups["real"], groups["translated"]
    lines = ["do nothing: the input left as it is. real: what real images reach;"]
    if real["kid"] is not None:
        lines.append(f"  KID: every second one beside the others ({real['images']}, {real['reference_images']})")
    if real["psnr"] is not None:
        lines.append("  PSNR to pixels: the same scenes drawn again, the ceiling")
    if translated["psnr"] is not None:
        lines.append("  colours, distance: the inputs' true counterparts")
    return lines
