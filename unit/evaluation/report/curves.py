"""The curves of metrics.jsonl: which share axes, and how many points of them are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeAlias

from unit.domains import Domain, PerDomain

Points: TypeAlias = list[tuple[int, float]]
"""(step, value), in the order of the steps"""

_BUCKETS = 250
"""A curve is drawn through the least and the greatest value of so many stretches."""
_LOGARITHMIC = 20
"""An axis of positive values is logarithmic when the greatest is so many times the least."""


@dataclass(frozen=True)
class Curve:
    """One line, and the values it stands for."""

    label: str
    points: Points


@dataclass(frozen=True)
class Chart:
    """Curves on shared axes."""

    title: str
    curves: list[Curve]

    @property
    def values(self) -> list[float]:
        """Of all curves."""
        return [value for curve in self.curves for _, value in curve.points]

    @property
    def logarithmic(self) -> bool:
        """Whether the values are best seen by their ratios."""
        least, greatest = min(self.values), max(self.values)
        return least > 0 and greatest / least >= _LOGARITHMIC


_GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Adversarial and discriminator losses", ("loss/adversarial", "loss/discriminator")),
    ("Reconstruction and cycle losses", ("loss/reconstruction", "loss/cycle")),
    ("KL losses", ("loss/kl", "loss/cycle_kl")),
    ("Sums of the losses", ("loss/generator_total", "loss/discriminator_total")),
    ("Discriminators' mean logits", ("discriminator/real_logit", "discriminator/fake_logit")),
    ("Held out: KID", ("val/kid", "val/kid_low", "val/kid_high")),
    ("Gradient norms", ("optimizer/gradient_norm_generator", "optimizer/gradient_norm_discriminator")),
    ("Learning rates", ("optimizer/learning_rate_generator", "optimizer/learning_rate_discriminator")),
)
"""Title, and the tags without their domain."""
_ROOMS = {"loss": "Loss: ", "discriminator": "Discriminators: ", "val": "Held out: "}
"""How the title of a tag that is in no group begins, by the tag's first part, in their order; others come last."""

_INITIALS = ("fid", "gb", "gpu", "kid", "kl", "psnr", "ssim")


def charts(log: Mapping[str, Mapping[int, float]], names: PerDomain[str]) -> list[Chart]:
    """What is drawn of a log, the losses first; alarms are told in words."""
    places = {tag: _place(tag) for tag in log if log[tag] and not tag.startswith("alarm/")}
    ordered = sorted(places, key=places.__getitem__)
    return [
        Chart(title, [Curve(_label(tag, names), list(log[tag].items())) for tag in tags])
        for title, tags in groupby(ordered, key=lambda tag: places[tag][1])
    ]


def _place(tag: str) -> tuple[int, str, int, str]:
    """Where the tag's curve comes: the chart's place and title, then the curve's."""
    stem = _stem(tag)
    for k, (title, stems) in enumerate(_GROUPS):
        if stem in stems:
            return k, title, stems.index(stem), tag
    room, _, what = stem.rpartition("/")
    beginnings = list(_ROOMS)
    k = beginnings.index(room) if room in _ROOMS else len(beginnings)
    title = _ROOMS[room] + _words(what) if room in _ROOMS else _words(what)
    return len(_GROUPS) + k, title[:1].upper() + title[1:], 0, tag


def _words(name: str) -> str:
    """The name as text: "cycle_kl" is "cycle KL"."""
    return " ".join(word.upper() if word in _INITIALS else word for word in name.split("_"))


def _ending(tag: str) -> str:
    endings = (*(f"_{i.direction}" for i in Domain), *(f"_{i}" for i in Domain))
    return next((ending for ending in endings if tag.endswith(ending)), "")


def _stem(tag: str) -> str:
    """The tag without its domain or direction."""
    return tag.removesuffix(_ending(tag))


def _label(tag: str, names: PerDomain[str]) -> str:
    """The tag's last part, its domain or direction under the user's names."""
    ending, what = _ending(tag), _words(_stem(tag).rpartition("/")[2])
    called = {f"_{i}": names[i] for i in Domain} | {f"_{i.direction}": f"{names[i]} → {names[i.other]}" for i in Domain}
    return f"{what}, {called[ending]}" if ending else what


def thinned(points: Points) -> Points:
    """At most 2 x 250 of the points: the least and the greatest of each stretch, so that no peak is lost."""
    if len(points) <= 2 * _BUCKETS:
        return points
    kept: Points = []
    for _, stretch in groupby(enumerate(points), key=lambda item: item[0] * _BUCKETS // len(points)):
        part = [point for _, point in stretch]
        kept += sorted({min(part, key=_value), max(part, key=_value)})
    return kept


def _value(point: tuple[int, float]) -> float:
    return point[1]


def smoothed(points: Points) -> Points:
    """The mean over a window around each point, a twentieth of the curve wide; narrower towards the ends."""
    reach = len(points) // 40
    sums = [0.0]
    for _, value in points:
        sums.append(sums[-1] + value)
    middle: Points = []
    for k, (step, _) in enumerate(points):
        near = min(reach, k, len(points) - 1 - k)
        middle.append((step, (sums[k + near + 1] - sums[k - near]) / (2 * near + 1)))
    return middle


def rough(points: Sequence[tuple[int, float]]) -> bool:
    """Whether a curve has points enough, and turns often enough, for its mean to say more than itself."""
    values = [value for _, value in points]
    turns = sum((b - a) * (c - b) < 0 for a, b, c in zip(values, values[1:], values[2:], strict=False))
    return len(values) >= 80 and turns > len(values) / 4
