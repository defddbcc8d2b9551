"""Charts in SVG's coordinates, for the macro `chart` of page.html."""

from __future__ import annotations

import math
from typing import Any

from unit.evaluation.report.curves import Chart, Curve

LEFT, RIGHT, TOP, BOTTOM = 52, 432, 10, 204
"""The plot's box; page.html's viewBox is 440 x 230."""
_COLORS = 6
"""Defined in style.css; further curves start over."""


class Axis:
    """Maps values to pixels from `start` to `end`."""

    def __init__(self, low: float, high: float, start: float, end: float, logarithmic: bool = False) -> None:
        self.logarithmic, self.start, self.end = logarithmic, start, end
        self.low, self.high = (math.log10(low), math.log10(high)) if logarithmic else (low, high)
        if self.low == self.high:
            margin = 0.5 if logarithmic else abs(low) / 10 or 1.0
            self.low, self.high = self.low - margin, self.high + margin

    def __call__(self, value: float) -> float:
        """Map a value to its pixel."""
        position = math.log10(value) if self.logarithmic else value
        return self.start + (position - self.low) / (self.high - self.low) * (self.end - self.start)

    def __str__(self) -> str:
        """Format for script.js, which maps pixels back to values."""
        return f"{self.start} {self.end} {self.low:.9g} {self.high:.9g}"

    def ticks(self, about: int) -> list[float]:
        """Choose about this many round values."""
        if self.logarithmic:
            decades = range(math.floor(self.low), math.ceil(self.high) + 1)
            factors = (1, 2, 5) if self.high - self.low < 2 else (1,)
            values = [factor * 10.0**decade for decade in decades for factor in factors]
            inside = [value for value in values if self.low - 1e-9 <= math.log10(value) <= self.high + 1e-9]
            return inside[:: -(-len(inside) // (about + 2))] if inside else []
        wanted = (self.high - self.low) / about
        magnitude = 10.0 ** math.floor(math.log10(wanted))
        step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= wanted * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [k * step for k in range(first, last + 1)]


def draw(chart: Chart) -> dict[str, Any]:
    """Lay out a chart: the arguments of the macro."""
    x = Axis(float(chart.steps.min()), float(chart.steps.max()), LEFT, RIGHT)
    y = Axis(float(chart.values.min()), float(chart.values.max()), BOTTOM - 4, TOP + 4, chart.logarithmic)
    colored = [(f"c{k % _COLORS}", curve) for k, curve in enumerate(chart.curves)]
    return {
        "title": chart.title,
        "x": x,
        "y": y,
        "x_ticks": [(x(value), short(int(value))) for value in x.ticks(5) if value == int(value)],
        "y_ticks": [(y(value), number(value)) for value in y.ticks(4)],
        "lines": [(f"{kind} {color}", _path(line, x, y)) for color, curve in colored for kind, line in _lines(curve)],
        "legend": [(color, curve.label, number(float(curve.values[-1]))) for color, curve in colored],
    }


def _lines(curve: Curve) -> list[tuple[str, Curve]]:
    """A curve as lines by their class in style.css: a noisy one is the background of its mean."""
    if len(curve.steps) == 1:
        return [("dot", curve)]
    if not curve.noisy:
        return [("line", curve.thinned())]
    return [("rough", curve.thinned()), ("line", curve.smoothed().thinned())]


def _path(curve: Curve, x: Axis, y: Axis) -> str:
    return " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in zip(curve.steps, curve.values, strict=True))


def number(value: float) -> str:
    """Format three significant digits, without an exponent where that is short."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}" if abs(value) < 1e7 else f"{value:.2e}"


def short(step: int) -> str:
    """Abbreviate a step for an axis: 500, 20k, 1.5M."""
    for unit, letter in ((1_000_000, "M"), (1_000, "k")):
        if step >= unit:
            return f"{step / unit:g}{letter}"
    return str(step)
