"""The curves of metrics.jsonl: which of them share a chart, smoothed and thinned for drawing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
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
    "Held out: KID": ("val/kid", "val/kid_low", "val/kid_high"),
    "Gradient norms": ("optimizer/gradient_norm_generator", "optimizer/gradient_norm_discriminator"),
    "Learning rates": ("optimizer/learning_rate_generator", "optimizer/learning_rate_discriminator"),
}
"""Title of a chart → the tags in it, without their domain. Other tags have a chart each."""
_TITLES = {stem: title for title, stems in _GROUPS.items() for stem in stems}
_PREFIXES = {"loss": "Loss: ", "discriminator": "Discriminators: ", "val": "Held out: "}
"""First part of a tag → how the title of its chart begins; in the order of the charts, before all others."""
_ACRONYMS = ("fid", "gb", "gpu", "kid", "kl", "psnr", "ssim")


@dataclass(frozen=True)
class Curve:
    """One line of a chart."""

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


@dataclass(frozen=True)
class Chart:
    """Curves on shared axes."""

    title: str
    curves: list[Curve]

    @property
    def steps(self) -> NDArray[Any]:
        """The steps of all curves."""
        return np.concatenate([curve.steps for curve in self.curves])

    @property
    def values(self) -> NDArray[Any]:
        """The values of all curves."""
        return np.concatenate([curve.values for curve in self.curves])

    @property
    def logarithmic(self) -> bool:
        """True if the values span a wide ratio."""
        low, high = self.values.min(), self.values.max()
        return bool(low > 0 and high / low >= _LOGARITHMIC)


def charts(log: Mapping[str, Mapping[int, float]], names: PerDomain[str]) -> list[Chart]:
    """Group a log (tag → step → value) into charts, the losses first; alarms are displayed as text elsewhere."""

    def curve(tag: str) -> Curve:
        stem, owner = _split(tag, names)
        label = _words(stem.rpartition("/")[2]) + (f", {owner}" if owner else "")
        return Curve(label, np.array(list(log[tag])), np.array(list(log[tag].values())))

    def order(tag: str) -> tuple[int, str, str]:
        stem, prefix = _split(tag, names)[0], tag.partition("/")[0]
        if stem in _TITLES:
            return list(_TITLES).index(stem), stem, tag
        return len(_TITLES) + [*_PREFIXES, prefix].index(prefix), stem, tag

    tags = sorted((tag for tag, points in log.items() if points and not tag.startswith("alarm/")), key=order)
    grouped = groupby(tags, key=lambda tag: _title(_split(tag, names)[0]))
    return [Chart(title, [curve(tag) for tag in members]) for title, members in grouped]


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
