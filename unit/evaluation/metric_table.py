"""The stored names of all metrics, and the table in which people read them."""

from __future__ import annotations

from textwrap import fill
from typing import NamedTuple, TypeAlias

from unit.domains import Domain, PerDomain

Metrics: TypeAlias = dict[str, dict[str, dict[str, float | None]]]
"""Direction ("a2b") → group ("translated", "identity" or "real") → metric → value, None where it has no meaning.

"do_nothing" is the old name of "identity", and stays beside it for one version.
"""

PAIRED = ("psnr", "ssim", "st_lpips", "feature_distance", "pixel_accuracy")
"""Metrics that need aligned pairs."""

COUNTS = ("images", "reference_images")
"""How many images the KIDs and FID compare."""

NAMES = (
    *("kid", "kid_low", "kid_high", "kid_vgg", "kid_vgg_low", "kid_vgg_high", "fid"),
    *PAIRED,
    *("sharpness", "colour_correlation", "identity_distance", "spread", "cycle_psnr", "reconstruction_psnr"),
    *COUNTS,
)
"""Every metric's stored name; `spread` is `unit.evaluation.metrics.diversity`."""

GROUPS = ("translated", "identity", "real")


class Row(NamedTuple):
    """How a metric is displayed."""

    label: str
    better: str
    factor: int = 1
    decimals: int = 1


ROWS = {
    "kid": Row("KID x 1000, {features}", "lower"),
    "kid_vgg": Row("KID-VGG x 1000, of ST-LPIPS", "lower"),
    "fid": Row("FID, {features}", "lower", decimals=2),
    "psnr": Row("PSNR, dB", "higher", decimals=2),
    "ssim": Row("SSIM", "higher", decimals=3),
    "st_lpips": Row("ST-LPIPS", "lower", decimals=3),
    "feature_distance": Row("feature distance, {features}", "lower", decimals=3),
    "pixel_accuracy": Row("pixels within 16 of 255, %", "higher", factor=100),
    "sharpness": Row("sharpness, real images' = 1", "as real", decimals=3),
    "colour_correlation": Row("colour correlation with the input", "as real", decimals=3),
    "identity_distance": Row("distance from the input, of 255", "as real"),
    "spread": Row("diversity, the inputs' = 1", "as real", decimals=3),
    "cycle_psnr": Row("cycle PSNR, dB", "higher", decimals=2),
    "reconstruction_psnr": Row("reconstruction PSNR, dB", "higher", decimals=2),
}


def table(metrics: Metrics, names: PerDomain[str], features: str | None = "Lite0", swapped: bool = False) -> str:
    """Format the metrics of both directions, and a sentence on each, as lines of text, 84 columns wide.

    Args:
        metrics: result of an `Evaluator`.
        names: the user's names of the domains.
        features: name of the features behind KID, FID and feature_distance.
        swapped: the images fit better the other way round.
    """
    lines = []
    for i in Domain:
        groups = metrics[i.direction]
        lines.append(f"{names[i]} to {names[i.other]}, {describe_counts(groups)}")
        for label, better, *cells in [["", "better", *GROUPS], *table_rows(groups, features)]:
            lines.append(f"  {label:<34}{better:<9}{''.join(f'{cell:>13}' for cell in cells)}".rstrip())
    sentences = [f"{names[i]} to {names[i.other]}: {verdict(metrics[i.direction], swapped)}" for i in Domain]
    return "\n".join(lines + _legend(metrics) + [fill(text, 84, subsequent_indent="  ") for text in sentences])


def verdict(groups: dict[str, dict[str, float | None]], swapped: bool = False) -> str:
    """Say whether translating is better than doing nothing: by KID, else by PSNR.

    Args:
        groups: the metrics of one direction.
        swapped: the images fit better the other way round.
    """
    translated, identity = groups["translated"], groups["identity"]
    name, unit, sign = ("kid", "", -1) if None not in (translated["kid"], identity["kid"]) else ("psnr", " dB", 1)
    value, baseline = translated[name], identity[name]
    if value is None or baseline is None:
        return "can't be judged; KID needs its packages and two images of each domain"
    values = f"{name.upper()} {value:.1f}{unit}, the input's {baseline:.1f}{unit}"
    gain = sign * (value - baseline)
    if swapped:
        return f"are the folders swapped? Translated the other way they fit better; now {values}"
    if name == "kid" and _overlap(translated, identity):
        return f"no clear difference from doing nothing: {values}, within the intervals; try more test images or steps"
    if gain > 0:
        return f"better than the input by {gain:.1f}{unit}: {values}"
    closer = (translated["psnr"] or 0) - (identity["psnr"] or 0)
    but = f", although PSNR is better by {closer:.1f} dB" if closer > 0 else ""
    return f"worse than doing nothing: {values}{but}; try more training steps"


def _overlap(one: dict[str, float | None], other: dict[str, float | None]) -> bool:
    """True if the intervals of KID overlap."""
    lows, highs = ([group[name] or 0 for group in (one, other)] for name in ("kid_low", "kid_high"))
    return max(lows) <= min(highs)


def describe_counts(groups: dict[str, dict[str, float | None]]) -> str:
    """Say how many images KID and FID compare."""
    return "{:,.0f} images vs. {:,.0f} real".format(*(groups["translated"][name] or 0 for name in COUNTS))


def table_rows(groups: dict[str, dict[str, float | None]], features: str | None) -> list[list[str]]:
    """Return the rows of one direction: the label, "higher", "lower" or "as real", and the value of each group.

    A metric that no group has is left out; the value of a group without it is empty.
    """
    rows = []
    for name, row in ROWS.items():
        values = [groups[group][name] for group in GROUPS]
        if any(value is not None for value in values):
            cells = ["" if value is None else f"{value * row.factor:.{row.decimals}f}" for value in values]
            rows.append([row.label.format(features=features), row.better, *cells])
        intervals = [_interval(groups[group], name) for group in GROUPS]
        if any(intervals):
            rows.append(["  95 % bootstrap interval", "", *intervals])
    return rows


def _interval(group: dict[str, float | None], name: str) -> str:
    low, high = group.get(f"{name}_low"), group.get(f"{name}_high")
    return "" if low is None or high is None else f"{low:.0f} to {high:.0f}"


def _legend(metrics: Metrics) -> list[str]:
    """Explain the last two columns."""
    groups = metrics[Domain.A.direction]
    real = groups["real"]
    lines = ["identity: the input, unchanged. real: what real images reach;"]
    if real["sharpness"] is not None:
        sets = "sharpness" if real["kid"] is None else "KID, sharpness"
        lines.append(f"  {sets}: real vs. real, half of the images ({real['images']}) vs. the other half")
    if real["psnr"] is not None:
        lines.append("  PSNR to pixels: the same scenes redrawn, an upper bound")
    if groups["translated"]["psnr"] is not None:
        lines.append("  colour correlation, distance: the inputs' true counterparts")
    return lines
