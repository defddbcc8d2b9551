"""The curves of metrics.jsonl as charts: those that share axes, and their coordinates for the macro `chart`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unit.domains import Domain, PerDomain

_BUCKETS = 250
"""A curve is drawn through the minimum and the maximum of this many stretches."""
_LOGARITHMIC = 20
"""Ratio of largest to smallest value from which an axis of positive values is logarithmic."""

_GROUPS = {
    "Adversarial and discriminator losses": ("loss/adversarial", "loss/discriminator"),
    "Reconstruction and cycle losses": ("loss/reconstruction", "loss/cycle"),
    "KL losses": ("loss/kl", "loss/cycle_kl"),
    "Sums of the losses": ("loss/generator_total", "loss/discriminator_total"),
    "Discriminators' mean logits": ("discriminator/real_logit", "discriminator/fake_logit"),
    "Held out: accuracy": ("val/accuracy", "val/accuracy_source"),
    "Held out: KID": ("val/kid", "val/kid_low", "val/kid_high"),
    "Held out: KID-VGG": ("val/kid_vgg", "val/kid_vgg_low", "val/kid_vgg_high"),
    "Held out: ST-LPIPS": ("val/st_lpips",),
    "Gradient norms": ("optimizer/gradient_norm_generator", "optimizer/gradient_norm_discriminator"),
    "Learning rates": ("optimizer/learning_rate_generator", "optimizer/learning_rate_discriminator"),
}
"""Title of a chart → the tags in it, without their domain. Other tags have a chart each."""
_TITLES = {stem: title for title, stems in _GROUPS.items() for stem in stems}
_PREFIXES = {"loss": "Loss: ", "discriminator": "Discriminators: ", "val": "Held out: "}
"""First part of a tag → how the title of its chart begins; in the order of the charts, before all others."""
_ACRONYMS = ("fid", "gb", "gpu", "kid", "kl", "lpips", "psnr", "ssim", "st", "vgg")


@dataclass(frozen=True)
class Curve:
    """A curve of a chart."""

    label: str
    steps: NDArray[Any]
    values: NDArray[Any]

    def thinned(self) -> Curve:
        """Reduce to at most 2 x 250 points: the extremes of each stretch, so that no peak is lost."""
        if len(self.steps) <= 2 * _BUCKETS:
            return self
        stretches = np.array_split(np.arange(len(self.steps)), _BUCKETS)
        extremes = [(part[self.values[part].argmin()], part[self.values[part].argmax()]) for part in stretches]
        kept = np.unique(extremes)
        return Curve(self.label, self.steps[kept], self.values[kept])

    def smoothed(self) -> Curve:
        """Average over a centred window, a twentieth of the curve wide, narrower towards the ends."""
        k = np.arange(len(self.steps))
        reach = np.minimum(np.minimum(k, k[::-1]), len(k) // 40)
        sums = np.concatenate([[0.0], np.cumsum(self.values)])
        return Curve(self.label, self.steps, (sums[k + reach + 1] - sums[k - reach]) / (2 * reach + 1))

    @property
    def noisy(self) -> bool:
        """True if the curve has enough points, and turns often enough, for its mean to be clearer than itself."""
        slopes = np.diff(self.values)
        return len(self.values) >= 80 and bool((slopes[:-1] * slopes[1:] < 0).sum() > len(self.values) / 4)


def charts(log: Mapping[str, Mapping[int, float]], names: PerDomain[str]) -> dict[str, list[Curve]]:
    """Group a log (tag → step → value) into charts by title, the losses first; alarms are text elsewhere."""
    ranks = [*_TITLES, *_PREFIXES]

    def order(tag: str) -> tuple[int, str, str]:
        stem = _split(tag, names)[0]
        key = stem if stem in _TITLES else tag.partition("/")[0]
        return ranks.index(key) if key in ranks else len(ranks), stem, tag

    by_title: dict[str, list[Curve]] = {}
    for tag in sorted((tag for tag, points in log.items() if points and not tag.startswith("alarm/")), key=order):
        stem, owner = _split(tag, names)
        label = _words(stem.rpartition("/")[2]) + (f", {owner}" if owner else "")
        curve = Curve(label, np.array(list(log[tag])), np.array(list(log[tag].values())))
        by_title.setdefault(_title(stem), []).append(curve)
    return by_title


def _title(stem: str) -> str:
    prefix, _, name = stem.rpartition("/")
    title = _TITLES.get(stem) or _PREFIXES.get(prefix, "") + _words(name)
    return title[:1].upper() + title[1:]


def _split(tag: str, names: PerDomain[str]) -> tuple[str, str]:
    """Split a tag into its stem and the user's name of its domain or direction, if it has one."""
    for i in Domain:
        for suffix, owner in ((f"_{i.direction}", f"{names[i]} → {names[i.other]}"), (f"_{i}", names[i])):
            if tag.endswith(suffix):
                return tag.removesuffix(suffix), owner
    return tag, ""


def _words(name: str) -> str:
    """Spell a name out: "cycle_kl" → "cycle KL"."""
    return " ".join(word.upper() if word in _ACRONYMS else word for word in name.split("_"))


LEFT, RIGHT, TOP, BOTTOM = 52, 432, 10, 204
"""The plot's box; page.html's viewBox is 440 x 230."""
_COLORS = 6
"""Defined in style.css; further curves start over."""


class Axis:
    """Maps values to pixels from `start` to `end`; positive values that span a wide ratio logarithmically."""

    def __init__(self, values: NDArray[Any], start: float, end: float, may_be_logarithmic: bool = False) -> None:
        self.start, self.end = start, end
        self.low, self.high = float(values.min()), float(values.max())
        self.logarithmic = may_be_logarithmic and self.low > 0 and self.high / self.low >= _LOGARITHMIC
        if self.logarithmic:
            self.low, self.high = math.log10(self.low), math.log10(self.high)
        elif self.low == self.high:
            margin = abs(self.low) / 10 or 1.0
            self.low, self.high = self.low - margin, self.high + margin

    def __call__(self, values: NDArray[Any]) -> NDArray[Any]:
        """Map values to their pixels."""
        positions = np.log10(values) if self.logarithmic else values
        return self.start + (positions - self.low) / (self.high - self.low) * (self.end - self.start)

    def __str__(self) -> str:
        """Format for script.js, which maps pixels back to values."""
        return f"{self.start} {self.end} {self.low:.9g} {self.high:.9g}"

    def ticks(self, about: int) -> NDArray[Any]:
        """Choose about this many round values."""
        if self.logarithmic:
            factors = (1, 2, 5) if self.high - self.low < 2 else (1,)
            decades = 10.0 ** np.arange(math.floor(self.low), math.ceil(self.high) + 1)
            values = np.outer(decades, factors).flatten()
            inside = values[(np.log10(values) >= self.low - 1e-9) & (np.log10(values) <= self.high + 1e-9)]
            return inside[:: -(-len(inside) // (about + 2))]
        wanted = (self.high - self.low) / about
        magnitude = 10.0 ** math.floor(math.log10(wanted))
        step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= wanted * 0.999)
        return step * np.arange(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)


def draw(title: str, curves: Sequence[Curve]) -> dict[str, Any]:
    """Lay out a chart: the arguments of the macro."""
    x = Axis(np.concatenate([curve.steps for curve in curves]), LEFT, RIGHT)
    y = Axis(np.concatenate([curve.values for curve in curves]), BOTTOM - 4, TOP + 4, may_be_logarithmic=True)
    x_ticks, y_ticks, lines, legend = x.ticks(5), y.ticks(4), [], []
    x_ticks = x_ticks[x_ticks == np.round(x_ticks)]
    for k, curve in enumerate(curves):
        color = f"c{k % _COLORS}"
        legend.append((color, curve.label, number(curve.values[-1])))
        for kind, line in _lines(curve):
            points = zip(x(line.steps), y(line.values), strict=True)
            lines.append((f"{kind} {color}", " ".join(f"{left:.1f},{top:.1f}" for left, top in points)))
    return {
        "title": title,
        "x": x,
        "y": y,
        "x_ticks": [(x(step), short(int(step))) for step in x_ticks],
        "y_ticks": [(y(value), number(value)) for value in y_ticks],
        "lines": lines,
        "legend": legend,
    }


def _lines(curve: Curve) -> list[tuple[str, Curve]]:
    """A curve as lines by their class in style.css: a noisy one is the background of its mean."""
    if len(curve.steps) == 1:
        return [("dot", curve)]
    if not curve.noisy:
        return [("line", curve.thinned())]
    return [("rough", curve.thinned()), ("line", curve.smoothed().thinned())]


def number(value: float) -> str:
    """Format three significant digits, without an exponent where that is short."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}" if abs(value) < 1e7 else f"{value:.2e}"


def short(step: int) -> str:
    """Abbreviate a step for an axis: 500, 20k, 1.5M."""
    if step >= 1_000_000:
        return f"{step / 1_000_000:g}M"
    return f"{step / 1000:g}k" if step >= 1000 else str(step)
