"""The results of an ablation: a file of JSON lines that outlives the runs, and Markdown tables of it."""

from __future__ import annotations

import json
import operator
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.ablation_study import Run, Study, changed_keys
from unit.domains import Domain
from unit.errors import ConfigError, escape
from unit.evaluation.metric_table import Metrics
from unit.files import atomic_write

Key: TypeAlias = tuple[str, ...]

_RENAMED = {
    "model.average_decay": "model.ema_decay",
    "model.equal_start": "model.same_init",
    "model.halvings": "model.downsamples",
    "train.accumulation": "train.grad_accum_steps",
}
"""Configuration keys in stored results → their names today."""


class Results:
    """A file of JSON lines: the duration of a step of each setting, and the result of each run.

    A later line about the same thing replaces an earlier one, so files of several machines can be concatenated.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: dict[Key, dict[str, Any]] = {}
        for line in _read(path):
            self._lines[_key(line)] = line

    def add(self, *lines: dict[str, Any]) -> None:
        """Write them to the file, atomically."""
        self._lines.update({_key(line): line for line in lines})
        atomic_write(self.path, "".join(json.dumps(line) + "\n" for line in self._lines.values()).encode())

    def speed(self, setting: str, size: int) -> dict[str, Any] | None:
        """Return the duration of a step and where it was measured; None: not yet."""
        return _upgraded(self._lines.get(("speed", setting, str(size))))

    def of(self, run: Run) -> dict[str, Any] | None:
        """Return the result of a run, with "metrics" or "failed"; None: not finished."""
        return _upgraded(self._lines.get(("run", *map(str, asdict(run).values()))))

    def require_same(self, study: Study, run: Run) -> None:
        """Raise `ConfigError` if a run, or its speed, was measured with another configuration."""
        now = changed_keys(study.config(run))
        for line, expected in ((self.of(run), now), (self.speed(run.setting, run.size), speed_keys(now))):
            config = line["config"] if line else expected
            differing = sorted(key for key in config.keys() | expected.keys() if config.get(key) != expected.get(key))
            if differing:
                raise ConfigError(
                    f"{escape(self.path)}: setting {run.setting} was measured with another {', '.join(differing)}; "
                    "give the new setting another name, or another --results"
                )


def _upgraded(line: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a stored line with today's names of configuration keys, metrics and the identity baseline."""
    if line is None:
        return None
    line = line | {"config": {_RENAMED.get(key, key): value for key, value in line.get("config", {}).items()}}
    if metrics := line.pop("figures", line.get("metrics")):
        line["metrics"] = {
            scenes: {way: {"identity": groups.get("do_nothing"), **groups} for way, groups in directions.items()}
            for scenes, directions in metrics.items()
        }
    return line


def speed_keys(config: dict[str, Any]) -> dict[str, Any]:
    """Select the keys that the duration of a step depends on."""
    return {key: value for key, value in config.items() if key.partition(".")[0] in ("model", "loss", "train")}


def _read(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            line = json.loads(text)
            _key(line)
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{escape(path)}: line {number} is not a result of this benchmark; remove it") from error
        yield line


def _key(line: dict[str, Any]) -> Key:
    names = {"speed": ("setting", "size"), "run": ("setting", "data", "size", "seed", "steps")}[line["kind"]]
    return (line["kind"], *(str(line[name]) for name in names))


# The tables


@dataclass(frozen=True)
class _Column:
    """A metric: its name in `Metrics`, how to print it, and which value is best."""

    label: str
    name: str
    factor: float
    decimals: int
    loss: Callable[[float], float] = operator.neg
    """the value with the lowest is best"""


_KID = _Column("KID x 1000", "kid", 1, 1, loss=float)
_KID_VGG = _Column("KID-VGG x 1000", "kid_vgg", 1, 1, loss=float)
_SHARPNESS = _Column("sharpness", "sharpness", 1, 2, loss=lambda ratio: abs(ratio - 1))
_PIXELS = _Column("pixels within 16, %", "pixel_accuracy", 100, 1)
_COLUMNS = (
    *(_KID, _KID_VGG, _Column("ST-LPIPS", "st_lpips", 1, 3, loss=float)),
    *(_Column("PSNR, dB", "psnr", 1, 2), _Column("SSIM", "ssim", 1, 3), _SHARPNESS, _PIXELS),
)
"""Results of before a metric was added have no columns for it."""
_MEAN = "mean"
Cell: TypeAlias = tuple[_Column, str]
"""A metric and a direction, or `_MEAN` of both directions."""
_CELLS: tuple[Cell, ...] = tuple(
    (column, way) for column in _COLUMNS for way in ("a2b", "b2a", *([_MEAN] if column in (_KID, _KID_VGG) else []))
)


def tables(study: Study, runs: Sequence[Run], results: Results) -> str:
    """Format for each data set a Markdown table of the runs, the identity baseline and the ceiling, with a caption."""
    sets = [[run for run in runs if run.data == data] for data in study.data]
    return "\n\n".join(_table(study, runs, results) for runs in sets)


def _table(study: Study, runs: Sequence[Run], results: Results) -> str:
    records = [record for run in runs if (record := results.of(run)) and "metrics" in record]
    metrics = [record["metrics"][study.table] for record in records]
    has_ceiling = any(run_metrics["a2b"]["real"]["psnr"] is not None for run_metrics in metrics)
    cells = [cell for cell in _CELLS if _known(metrics, "translated", cell)]
    if has_ceiling:  # the maps' metric says little about streets
        cells = [cell for cell in cells if cell[0] is not _PIXELS]
    rows, means = [], {}
    for setting in study.settings:
        mine = [record["metrics"][study.table] for record in records if record["setting"] == setting]
        steps = next(run.steps for run in runs if run.setting == setting)
        speed = results.speed(setting, runs[0].size)
        means[setting] = [_mean(mine, "translated", cell) for cell in cells]
        head = [setting, f"{len(mine)}", f"{steps:,}", f"{speed['seconds']:.3g}" if speed else "–"]
        rows.append(head + [_cell(mine, cell, has_ceiling) for cell in cells])
    for cell, (column, _) in enumerate(cells):
        best = _best([(row, means[row[0]][cell]) for row in rows], column)
        if best:
            best[4 + cell] = f"**{best[4 + cell]}**"
    for label, group in (("identity", "identity"), ("ceiling" if has_ceiling else "real vs. real", "real")):
        numbers = [_number(_mean(metrics, group, cell), cell[0]) for cell in cells]
        rows.append([f"*{label}*", "", "", "", *numbers])
    heading = ["setting", "seeds", "steps", "s/step", *(f"{column.label} {way}" for column, way in cells)]
    notes = [note for run in runs for note in _notes(run, results.of(run))]
    lines = [heading, ["---"] * len(heading), *rows]
    markdown = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return "\n\n".join(
        filter(None, [markdown, "\n".join(f"- {note}" for note in notes), _caption(study, runs, results, has_ceiling)])
    )


def _value(metrics: Metrics, group: str, cell: Cell) -> float | None:
    column, way = cell
    ways = [i.direction for i in Domain] if way == _MEAN else [way]
    values = [metrics[way][group].get(column.name) for way in ways]
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(ways) else None


def _share(metrics: Metrics, cell: Cell) -> float | None:
    """Return the share of the way from the identity baseline (0) to the ceiling (1) that the translation has come."""
    if cell[0] is _SHARPNESS:  # identity is often as sharp as real images
        return None
    translated, identity, ceiling = (_value(metrics, group, cell) for group in ("translated", "identity", "real"))
    if translated is None or identity is None or ceiling is None or ceiling == identity:
        return None
    return (translated - identity) / (ceiling - identity)


def _known(metrics: Sequence[Metrics], group: str, cell: Cell) -> list[float]:
    return [value for run_metrics in metrics if (value := _value(run_metrics, group, cell)) is not None]


def _mean(metrics: Sequence[Metrics], group: str, cell: Cell) -> float | None:
    values = _known(metrics, group, cell)
    return statistics.fmean(values) if values else None


def _cell(metrics: Sequence[Metrics], cell: Cell, with_share: bool) -> str:
    """Format mean ± standard deviation over the seeds (share of the way)."""
    values = _known(metrics, "translated", cell)
    if not values:
        return "–"
    text = _number(statistics.fmean(values), cell[0])
    if len(values) > 1:
        text += f" ± {_number(statistics.stdev(values), cell[0])}"
    shares = [share for run_metrics in metrics if with_share and (share := _share(run_metrics, cell)) is not None]
    return text + (f" ({statistics.fmean(shares):.0%})" if shares else "")


def _number(value: float | None, column: _Column) -> str:
    return "–" if value is None else f"{value * column.factor:.{column.decimals}f}"


def _best(rows: list[tuple[list[str], float | None]], column: _Column) -> list[str] | None:
    known = [(value, row) for row, value in rows if value is not None]
    return min(known, key=lambda pair: column.loss(pair[0]))[1] if known else None


def _notes(run: Run, record: dict[str, Any] | None) -> Iterator[str]:
    if record is None:
        yield f"{run.setting}, seed {run.seed}: not finished"
    elif "failed" in record:
        yield f"{run.setting}, seed {run.seed}: failed: {record['failed']}"
    else:
        for name, step in record["alarms"].items():
            yield f"{run.setting}, seed {run.seed}: the alarm {name} from step {step:,}"


def _caption(study: Study, runs: Sequence[Run], results: Results, has_ceiling: bool) -> str:
    run = runs[0]
    scenes = {"select": "validation scenes", "report": "test scenes, not used for selection"}[study.table]
    parts = [f"{run.data} at {run.size} px, {scenes}", "mean ± standard deviation over the seeds"]
    if has_ceiling:
        parts.append("in brackets: share of the way from identity to the ceiling (KID's is real vs. real)")
    machines = {_machine(speed) for setting in study.settings if (speed := results.speed(setting, run.size))}
    if study.minutes and machines:
        parts.append(f"{study.minutes:g} minutes per run on {'; '.join(sorted(machines))}")
    return "; ".join(parts) + "."


def _machine(speed: dict[str, Any]) -> str:
    at_once = f", {speed['jobs']} runs at once" if speed["jobs"] > 1 else ""
    return f"{speed['machine']} ({speed['cores']} cores{at_once}, {speed['precision']}, torch {speed['torch']})"
