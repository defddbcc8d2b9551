"""Charts as SVG, drawn with the page's colours."""

from __future__ import annotations

import math

from unit.evaluation.report.curves import Chart, Curve, Points, rough, smoothed, thinned
from unit.evaluation.report.page import element, text

_WIDTH, _HEIGHT = 440, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 432, 10, 204
_COLOURS = 6
"""In style.css; a curve more begins anew."""
_TEXT_DROP = 4


class _Axis:
    """Values to pixels, from `start` to `end`."""

    def __init__(self, low: float, high: float, start: float, end: float, logarithmic: bool = False) -> None:
        self.logarithmic, self.start, self.end = logarithmic, start, end
        self.low, self.high = (math.log10(low), math.log10(high)) if logarithmic else (low, high)
        if self.low == self.high:
            margin = 0.5 if logarithmic else abs(low) / 10 or 1.0
            self.low, self.high = self.low - margin, self.high + margin

    def __call__(self, value: float) -> float:
        place = math.log10(value) if self.logarithmic else value
        return self.start + (place - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, about: int) -> list[float]:
        """Round values along the axis."""
        if self.logarithmic:
            decades = range(math.floor(self.low), math.ceil(self.high) + 1)
            factors = (1, 2, 5) if self.high - self.low < 2 else (1,)
            values = [factor * 10.0**decade for decade in decades for factor in factors]
            inside = [value for value in values if self.low - 1e-9 <= math.log10(value) <= self.high + 1e-9]
            return inside[:: -(-len(inside) // (about + 2))] if inside else []
        rough_step = (self.high - self.low) / about
        magnitude = 10.0 ** math.floor(math.log10(rough_step))
        step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough_step * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [k * step for k in range(first, last + 1)]


def drawn(chart: Chart) -> str:
    """The chart with its title and legend, which has the last values."""
    steps = [step for curve in chart.curves for step, _ in curve.points]
    x = _Axis(min(steps), max(steps), _LEFT, _RIGHT)
    y = _Axis(min(chart.values), max(chart.values), _BOTTOM - 4, _TOP + 4, chart.logarithmic)
    lines = [_line(curve, k, x, y) for k, curve in enumerate(chart.curves)]
    svg = element(
        "svg",
        *(_level(y, value) for value in y.ticks(4)),
        *(_step(x, value) for value in x.ticks(5) if value == int(value)),
        *lines,
        element("line", class_="cursor", x1=_LEFT, x2=_LEFT, y1=_TOP, y2=_BOTTOM),
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label=chart.title,
        data_x=f"{x.start} {x.end} {x.low:.9g} {x.high:.9g}",
        data_y=f"{y.start} {y.end} {y.low:.9g} {y.high:.9g}",
        data_log=y.logarithmic,
    )
    scale = element("span", " logarithmic", class_="quiet") if chart.logarithmic else ""
    heading = element("h3", text(chart.title), scale, element("output", class_="quiet"))
    legend = element("ul", *(_entry(curve, k) for k, curve in enumerate(chart.curves)), class_="legend")
    return element("figure", heading, svg, legend, class_="chart")


def _line(curve: Curve, k: int, x: _Axis, y: _Axis) -> str:
    """The curve; of a rough one also its mean, and itself in the background."""
    colour = f"c{k % _COLOURS}"
    if len(curve.points) == 1:
        ((step, value),) = curve.points
        return element("circle", class_=f"dot {colour}", cx=f"{x(step):.1f}", cy=f"{y(value):.1f}", r=3)
    line = element("polyline", class_=f"line {colour}", points=_path(thinned(curve.points), x, y))
    if not rough(curve.points):
        return line
    behind = element("polyline", class_=f"rough {colour}", points=_path(thinned(curve.points), x, y))
    mean = element("polyline", class_=f"line {colour}", points=_path(thinned(smoothed(curve.points)), x, y))
    return behind + mean


def _path(points: Points, x: _Axis, y: _Axis) -> str:
    return " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in points)


def _level(y: _Axis, value: float) -> str:
    at = f"{y(value):.1f}"
    label = element("text", text(number(value)), x=_LEFT - 6, y=f"{y(value) + _TEXT_DROP:.1f}", text_anchor="end")
    return element("line", class_="grid", x1=_LEFT, x2=_RIGHT, y1=at, y2=at) + label


def _step(x: _Axis, value: float) -> str:
    anchor = "end" if x(value) > _RIGHT - 12 else "middle"
    return element("text", text(short(int(value))), x=f"{x(value):.1f}", y=_HEIGHT - 8, text_anchor=anchor)


def _entry(curve: Curve, k: int) -> str:
    value = element("b", text(number(curve.points[-1][1])))
    return element("li", element("i", class_=f"key c{k % _COLOURS}"), f"{text(curve.label)} ", value)


def number(value: float) -> str:
    """Three significant digits, without an exponent where it is short so."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}" if abs(value) < 1e7 else f"{value:.2e}"


def short(step: int) -> str:
    """A number of steps as briefly as an axis wants it: 500, 20k, 1.5M."""
    for unit, letter in ((1_000_000, "M"), (1_000, "k")):
        if step >= unit:
            return f"{step / unit:g}{letter}"
    return str(step)
