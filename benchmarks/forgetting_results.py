"""The results of forgetting.py: a file of JSON lines, Markdown tables, and a plot of the old task against the new."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unit.domains import Domain
from unit.errors import ConfigError, escape
from unit.files import atomic_write

TASKS = ("day", "night")
"""The old task and the new one."""
SCENES = ("select", "report")
"""Scenes to choose a strength by, and to report on."""


class Results:
    """A file of JSON lines, one for each run; a later line about the same run replaces an earlier one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[dict[str, Any]] = []
        for number, text in enumerate(path.read_text(encoding="utf-8").splitlines() if path.exists() else (), 1):
            try:
                line = json.loads(text)
                self._key(line)
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(
                    f"{escape(path)}: line {number} is not a result of this benchmark; remove it"
                ) from error
            self._put(line)

    def _key(self, line: dict[str, Any]) -> tuple[str, int, int, int]:
        return line["name"], line["seed"], line["old_steps"], line["steps"]

    def _put(self, line: dict[str, Any]) -> None:
        self.lines = [*(other for other in self.lines if self._key(other) != self._key(line)), line]

    def of(self, name: str, seed: int, old_steps: int, steps: int) -> dict[str, Any] | None:
        """Return the result of a run; None: not finished."""
        return next((line for line in self.lines if self._key(line) == (name, seed, old_steps, steps)), None)

    def add(self, line: dict[str, Any]) -> None:
        """Write a result to the file, atomically."""
        self._put(line)
        atomic_write(self.path, "".join(json.dumps(line) + "\n" for line in self.lines).encode())

    def names(self) -> list[str]:
        """Return the settings: before, plain, each method by strength, joint."""
        order = ("before", "plain", "l2", "memory", "joint")
        keys = {(order.index(line["setting"]), line["strength"], line["name"]) for line in self.lines}
        return [name for *_, name in sorted(keys)]


@dataclass(frozen=True)
class _Metric:
    label: str
    name: str
    decimals: int
    sign: int
    """1: higher is better, -1: lower"""


_METRICS = (_Metric("PSNR, dB", "psnr", 2, 1), _Metric("SSIM", "ssim", 3, 1), _Metric("KID x 1000", "kid", 1, -1))


def _values(results: Results, name: str, task: str, metric: _Metric, scenes: str, ways: Sequence[str]) -> list[float]:
    """Return each seed's metric, averaged over the directions."""
    values = []
    for line in results.lines:
        if line["name"] == name:
            directions = [line["metrics"][scenes][task][way][metric.name] for way in ways]
            if None not in directions:
                values.append(statistics.fmean(directions))
    return values


_WAYS = [i.direction for i in Domain]


def tables(results: Results) -> str:
    """Format the metrics of both tasks in both directions, and what each setting keeps and gains, as Markdown."""
    if not results.lines:
        return "no results yet"
    return f"{_metrics_table(results)}\n\n{_shares_table(results)}\n\n{_caption(results)}"


def _metrics_table(results: Results) -> str:
    cells = [(task, metric, way) for task in TASKS for metric in _METRICS for way in _WAYS]
    rows = [["setting", "seeds", *(f"{task}: {metric.label} {way}" for task, metric, way in cells)]]
    for name in results.names():
        row = [name, str(sum(line["name"] == name for line in results.lines))]
        for task, metric, way in cells:
            row.append(_mean(_values(results, name, task, metric, "report", [way]), metric))
        rows.append(row)
    return _markdown(rows)


def _shares_table(results: Results) -> str:
    rows = [["setting", *(f"{share}, {metric.label}" for metric in _METRICS for share in ("kept", "gained"))]]
    for name in results.names():
        shares = [shares_of(results, name, metric, "report") for metric in _METRICS]
        rows.append([name, *(f"{share:.0%}" if share is not None else "–" for pair in shares for share in pair)])
    return _markdown(rows)


def shares_of(results: Results, name: str, metric: _Metric, scenes: str) -> tuple[float | None, float | None]:
    """Return the shares kept of what plain fine-tuning loses on the old task, and gained of what it gains on the new.

    Of means over seeds and directions: plain fine-tuning is 0 and 1, the model before it 1 and 0.
    """

    def mean(setting: str, task: str) -> float | None:
        values = _values(results, setting, task, metric, scenes, _WAYS)
        return statistics.fmean(values) if values else None

    def share(value: float | None, zero: float | None, one: float | None) -> float | None:
        if value is None or zero is None or one is None or zero == one:
            return None
        return (value - zero) / (one - zero)

    old, new = TASKS
    kept = share(mean(name, old), mean("plain", old), mean("before", old))
    gained = share(mean(name, new), mean("before", new), mean("plain", new))
    return kept, gained


def best(results: Results, setting: str) -> str | None:
    """Return the strength of a method that keeps and gains most in PSNR, on the scenes to select by."""

    def score(name: str) -> float:
        shares = shares_of(results, name, _METRICS[0], "select")
        return sum(min(share or 0.0, 1.0) for share in shares)

    names = {line["name"] for line in results.lines if line["setting"] == setting}
    return max(sorted(names), key=score, default=None)


def _caption(results: Results) -> str:
    line = results.lines[0]
    chosen = ", ".join(filter(None, (best(results, setting) for setting in ("memory", "l2"))))
    old, new = line["images"]
    return (
        f"Streets at {line['size']} px, test scenes of another town; mean ± standard deviation over the seeds. kept: "
        "of what plain fine-tuning loses by day; gained: of what it gains at night; both of means over directions. "
        f"{old} images of each weather by day, {new} at night. Best on the scenes to select by: {chosen or 'none'}. "
        f"{line['device']}, {line['precision']}, torch {line['torch']}, Python {line['python']}."
    )


def _mean(values: list[float], metric: _Metric) -> str:
    if not values:
        return "–"
    text = f"{statistics.fmean(values):.{metric.decimals}f}"
    return text + (f" ± {statistics.stdev(values):.{metric.decimals}f}" if len(values) > 1 else "")


def _markdown(rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:]))


# The plot

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 420, 340, 56, 34, 12, 46
_COLORS = {"before": "#444", "plain": "#c33", "l2": "#c80", "memory": "#06c", "joint": "#393"}


def plot(results: Results) -> str:
    """Draw a panel for each metric: the old task's mean over directions against the new's, in SVG; better is up right.

    Large dots are means over the seeds, small ones the seeds; lines join the strengths of a method.
    """
    panels = [f'<g transform="translate({k * _WIDTH} 0)">{_panel(results, m)}</g>' for k, m in enumerate(_METRICS)]
    size = f'width="{len(panels) * _WIDTH}" height="{_HEIGHT}"'
    style = 'font-family="sans-serif" font-size="12"'
    background = '<rect width="100%" height="100%" fill="white"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{background}{"".join(panels)}</svg>\n'


def _panel(results: Results, metric: _Metric) -> str:
    def points(name: str) -> list[tuple[float, float]]:
        values = [_values(results, name, task, metric, "report", _WAYS) for task in TASKS[::-1]]
        return list(zip(*values, strict=True))

    by_name = {name: found for name in results.names() if (found := points(name))}
    everything = [point for found in by_name.values() for point in found]
    parts = [f'<text x="{_LEFT}" y="20" font-weight="bold">{metric.label}</text>']
    if not everything:
        return parts[0]
    x = _Scale([point[0] for point in everything], _LEFT, _WIDTH - _RIGHT, flip=metric.sign < 0)
    y = _Scale([point[1] for point in everything], _HEIGHT - _BOTTOM, _TOP, flip=metric.sign < 0)
    parts += _axes(x, y, metric)
    means = {name: tuple(map(statistics.fmean, zip(*found, strict=True))) for name, found in by_name.items()}
    for setting, color in _COLORS.items():
        names = [name for name in by_name if name.partition("-")[0] == setting]
        line = " ".join(f"{x(means[name][0]):.1f},{y(means[name][1]):.1f}" for name in names)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}"/>')
        for name in names:
            dots = [(*point, 2) for point in by_name[name]] + [(*means[name], 5)]
            parts += [f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="{r}" fill="{color}"/>' for a, b, r in dots]
            left, top = x(means[name][0]), y(means[name][1])
            anchor = "end" if left > _WIDTH - 90 else "start"
            shift = -8 if anchor == "end" else 8
            parts.append(
                f'<text x="{left + shift:.1f}" y="{top - 6:.1f}" fill="{color}" text-anchor="{anchor}">{name}</text>'
            )
    return "".join(parts)


class _Scale:
    """Maps values to pixels from `start` to `end`, with a margin; `flip`: larger values nearer to `start`."""

    def __init__(self, values: Sequence[float], start: float, end: float, flip: bool) -> None:
        margin = 0.08 * (max(values) - min(values)) or 1.0
        self.low, self.high, self.start, self.end = min(values) - margin, max(values) + margin, start, end
        if flip:
            self.start, self.end = end, start

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def _axes(x: _Scale, y: _Scale, metric: _Metric) -> list[str]:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = [f'<path d="M{_LEFT} {_TOP}V{bottom}H{right}" fill="none" stroke="#999"/>']
    for fraction in (0.1, 0.5, 0.9):
        a, b = (scale.low + fraction * (scale.high - scale.low) for scale in (x, y))
        parts.append(f'<text x="{x(a):.1f}" y="{bottom + 16}" text-anchor="middle">{a:.{metric.decimals}f}</text>')
        parts.append(f'<text x="{_LEFT - 4}" y="{y(b) + 4:.1f}" text-anchor="end">{b:.{metric.decimals}f}</text>')
    parts.append(f'<text x="{(_LEFT + right) / 2}" y="{bottom + 36}" text-anchor="middle">new task: night</text>')
    middle = (_TOP + bottom) / 2
    turned = f'transform="rotate(-90 12 {middle})"'
    return [*parts, f'<text x="12" y="{middle}" text-anchor="middle" {turned}>old task: day</text>']
