"""The stored names of all metrics, and the table in which people read them."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from unit.domains import Domain, PerDomain

Metrics: TypeAlias = dict[str, dict[str, dict[str, float | None]]]
"""Direction ("a2b") → group ("translated", "identity" or "real") → metric → value, None where it has no meaning.

"do_nothing" is the old name of "identity", and stays beside it for one version.
"""

PAIRED = ("psnr", "ssim", "feature_distance", "pixel_accuracy")
"""Metrics that need aligned pairs."""

COUNTS = ("images", "reference_images")
"""How many images KID and FID compare."""

NAMES = (
    *("kid", "kid_low", "kid_high", "fid"),
    *PAIRED,
    *("colour_correlation", "identity_distance", "spread", "cycle_psnr", "reconstruction_psnr"),
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

    def text(self, value: float | None) -> str:
        """Format a value in the row's unit; empty for None."""
        return "" if value is None else f"{value * self.factor:.{self.decimals}f}"


ROWS = {
    "kid": Row("KID x 1000, {features}", "lower"),
    "fid": Row("FID, {features}", "lower", decimals=2),
    "psnr": Row("PSNR, dB", "higher", decimals=2),
    "ssim": Row("SSIM", "higher", decimals=3),
    "feature_distance": Row("feature distance, {features}", "lower", decimals=3),
    "pixel_accuracy": Row("pixels within 16 of 255, %", "higher", factor=100),
    "colour_correlation": Row("colour correlation with the input", "as real", decimals=3),
    "identity_distance": Row("distance from the input, of 255", "as real"),
    "spread": Row("diversity, the inputs' = 1", "as real", decimals=3),
    "cycle_psnr": Row("cycle PSNR, dB", "higher", decimals=2),
    "reconstruction_psnr": Row("reconstruction PSNR, dB", "higher", decimals=2),
}


def table(metrics: Metrics, names: PerDomain[str], features: str | None = "Lite0") -> str:
    """Format the metrics of both directions as lines of text, 84 columns wide.

    Args:
        metrics: result of an `Evaluator`.
        names: the user's names of the domains.
        features: name of the features behind KID, FID and feature_distance.
    """
    blocks = [_block(metrics[i.direction], f"{names[i]} to {names[i.other]}", features) for i in Domain]
    return "\n".join([*blocks, *_legend(metrics)])


def _block(groups: dict[str, dict[str, float | None]], direction: str, features: str | None) -> str:
    images, reference = (f"{groups['translated'][name]:,.0f}" for name in COUNTS)
    lines = [
        f"{direction}, {images} images vs. {reference} real",
        f"  {'':<34}{'better':<9}" + "".join(f"{group:>13}" for group in GROUPS),
    ]
    for name, row in ROWS.items():
        values = [groups[group][name] for group in GROUPS]
        if any(value is not None for value in values):
            cells = "".join(f"{row.text(value):>13}" for value in values)
            lines.append(f"  {row.label.format(features=features):<34}{row.better:<9}{cells}")
        if name == "kid" and values[0] is not None:
            intervals = "".join(f"{interval_text(groups[group]):>13}" for group in GROUPS)
            lines.append(f"  {'  95 % bootstrap interval':<43}{intervals}")
    return "\n".join(line.rstrip() for line in lines)


def interval_text(group: dict[str, float | None]) -> str:
    """Format KID's interval; empty where there is none."""
    low, high = group["kid_low"], group["kid_high"]
    return "" if low is None or high is None else f"{low:.0f} to {high:.0f}"


def _legend(metrics: Metrics) -> list[str]:
    """Explain the last two columns."""
    groups = metrics[Domain.A.direction]
    real = groups["real"]
    lines = ["identity: the input, unchanged. real: what real images reach;"]
    if real["kid"] is not None:
        lines.append(f"  KID: real vs. real, every second image ({real['images']}) against the others")
    if real["psnr"] is not None:
        lines.append("  PSNR to pixels: the same scenes redrawn, an upper bound")
    if groups["translated"]["psnr"] is not None:
        lines.append("  colour correlation, distance: the inputs' true counterparts")
    return lines
