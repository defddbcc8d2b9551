"""What an ablation has found: a file of JSON lines that outlives the runs, and the Markdown tables made of it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.ablation_study import Run, Study, changed_keys
from unit.domains import Domain
from unit.errors import ConfigError, escape
from unit.evaluation.evaluate import Metrics
from unit.files import atomic_write

Key: TypeAlias = tuple[str, ...]


class Results:
    """A file of JSON lines: how long a step of each setting takes, and what became of each run.

    Of two lines about the same thing the later one counts, so files of several machines can be put one after another.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: dict[Key, dict[str, Any]] = {}
        for line in _read(path):
            self._lines[_key(line)] = line

    def add(self, *lines: dict[str, Any]) -> None:
        """Put them into the file, in one stroke."""
        self._lines.update({_key(line): line for line in lines})
        atomic_write(self.path, "".join(json.dumps(line) + "\n" for line in self._lines.values()).encode())

    def speed(self, setting: str, size: int) -> dict[str, Any] | None:
        """How long a step takes, and on what it was measured; None: not yet."""
        return self._lines.get(("speed", setting, str(size)))

    def of(self, run: Run) -> dict[str, Any] | None:
        """What became of a run, with "metrics" or "failed"; None: nothing yet."""
        return self._lines.get(("run", *map(str, asdict(run).values())))

    def require_same(self, study: Study, run: Run) -> None:
        """Raise `ConfigError` where what is known of a run, or of its speed, is of another configuration."""
        now = changed_keys(study.config(run))
        known = self.of(run), self.speed(run.setting, run.size)
        for before, wanted in ((known[0], now), (known[1], costly(now))):
            config = before["config"] if before else wanted
            differ = sorted(key for key in config.keys() | wanted.keys() if config.get(key) != wanted.get(key))
            if differ:
                raise ConfigError(
                    f"{escape(self.path)}: setting {run.setting} was measured with another {', '.join(differ)}; "
                    "call what is new by another name, or give another --results"
                )


def costly(config: dict[str, Any]) -> dict[str, Any]:
    """The keys that a step's time depends on."""
    return {key: value for key, value in config.items() if key.partition(".")[0] in ("model", "loss", "train")}


def _read(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            line = json.loads(text)
            _key(line)
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{escape(path)}: line {number} is none of this benchmark's; remove it") from error
        yield line


def _key(line: dict[str, Any]) -> Key:
    names = {"speed": ("setting", "size"), "run": ("setting", "data", "size", "seed", "steps")}[line["kind"]]
    return (line["kind"], *(str(line[name]) for name in names))


# The tables


@dataclass(frozen=True)
class _Column:
    """Of one metric: where it lies in `Metrics`, how it is printed, and which way is better."""

    label: str
    name: str
    factor: float
    decimals: int
    lower_is_better: bool = False


_KID = _Column("KID x 1000", "kid", 1, 1, lower_is_better=True)
_PIXELS = _Column("pixels within 16, %", "pixel_accuracy", 100, 1)
_COLUMNS = (_KID, _Column("PSNR, dB", "psnr", 1, 2), _Column("SSIM", "ssim", 1, 3), _PIXELS)
_MEAN = "mean"
Cell: TypeAlias = tuple[_Column, str]
"""A metric and a direction, or `_MEAN` of both."""
_CELLS: tuple[Cell, ...] = tuple(
    (it, way) for it in _COLUMNS for way in ("a2b", "b2a", *([_MEAN] if it is _KID else []))
)


def tables(study: Study, runs: Sequence[Run], results: Results) -> str:
    """Markdown: for each data set a table of the runs, beside doing nothing and the ceiling, and how it was made."""
    sets = [[run for run in runs if run.data == data] for data in study.data]
    return "\n\n".join(_table(study, some, results) for some in sets)


def _table(study: Study, runs: Sequence[Run], results: Results) -> str:
    records = [record for run in runs if (record := results.of(run)) and "metrics" in record]
    metrics = [record["metrics"][study.table] for record in records]
    shared = any(it["a2b"]["real"]["psnr"] is not None for it in metrics)
    cells = [it for it in _CELLS if any(_value(each, "translated", it) is not None for each in metrics)]
    if shared:  # the metric of maps says little about streets
        cells = [it for it in cells if it[0] is not _PIXELS]
    rows, means = [], {}
    for setting in study.settings:
        mine = [record["metrics"][study.table] for record in records if record["setting"] == setting]
        steps = next(run.steps for run in runs if run.setting == setting)
        speed = results.speed(setting, runs[0].size)
        means[setting] = [_mean(mine, "translated", cell) for cell in cells]
        head = [setting, f"{len(mine)}", f"{steps:,}", f"{speed['seconds']:.3g}" if speed else "–"]
        rows.append(head + [_cell(mine, cell, shared) for cell in cells])
    for cell, (column, _) in enumerate(cells):
        best = _best([(row, means[row[0]][cell]) for row in rows], column)
        if best:
            best[4 + cell] = f"**{best[4 + cell]}**"
    for label, guess in (("do nothing", "do_nothing"), ("ceiling" if shared else "real beside real", "real")):
        numbers = [_number(_mean(metrics, guess, cell), cell[0]) for cell in cells]
        rows.append([f"*{label}*", "", "", "", *numbers])
    heading = ["setting", "seeds", "steps", "s/step", *(f"{column.label} {way}" for column, way in cells)]
    notes = [note for run in runs for note in _notes(run, results.of(run))]
    lines = [heading, ["---"] * len(heading), *rows]
    markdown = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return "\n\n".join(
        filter(None, [markdown, "\n".join(f"- {it}" for it in notes), _caption(study, runs, results, shared)])
    )


def _value(metrics: Metrics, guess: str, cell: Cell) -> float | None:
    column, way = cell
    ways = [i.direction for i in Domain] if way == _MEAN else [way]
    values = [metrics[it][guess][column.name] for it in ways]
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(ways) else None


def _share(metrics: Metrics, cell: Cell) -> float | None:
    """How far of the way from doing nothing to the ceiling the translation has come: 0 to 1, below 0 if it is worse."""
    translated, nothing, ceiling = (_value(metrics, guess, cell) for guess in ("translated", "do_nothing", "real"))
    if translated is None or nothing is None or ceiling is None or ceiling == nothing:
        return None
    return (translated - nothing) / (ceiling - nothing)


def _known(metrics: Sequence[Metrics], of: Callable[[Metrics], float | None]) -> list[float]:
    return [value for it in metrics if (value := of(it)) is not None]


def _mean(metrics: Sequence[Metrics], guess: str, cell: Cell) -> float | None:
    values = _known(metrics, lambda it: _value(it, guess, cell))
    return statistics.fmean(values) if values else None


def _cell(metrics: Sequence[Metrics], cell: Cell, shared: bool) -> str:
    """Mean ± standard deviation over the seeds (share of the way)."""
    values = _known(metrics, lambda it: _value(it, "translated", cell))
    if not values:
        return "–"
    text = _number(statistics.fmean(values), cell[0])
    if len(values) > 1:
        text += f" ± {_number(statistics.stdev(values), cell[0])}"
    shares = _known(metrics, lambda it: _share(it, cell)) if shared else []
    return text + (f" ({statistics.fmean(shares):.0%})" if shares else "")


def _number(value: float | None, column: _Column) -> str:
    return "–" if value is None else f"{value * column.factor:.{column.decimals}f}"


def _best(rows: list[tuple[list[str], float | None]], column: _Column) -> list[str] | None:
    known = [(value, row) for row, value in rows if value is not None]
    choose = min if column.lower_is_better else max
    return choose(known, key=lambda pair: pair[0])[1] if known else None


def _notes(run: Run, record: dict[str, Any] | None) -> Iterator[str]:
    if record is None:
        yield f"{run.setting}, seed {run.seed}: not finished"
    elif "failed" in record:
        yield f"{run.setting}, seed {run.seed}: failed: {record['failed']}"
    else:
        for name, step in record["alarms"].items():
            yield f"{run.setting}, seed {run.seed}: the alarm {name} from step {step:,}"


def _caption(study: Study, runs: Sequence[Run], results: Results, shared: bool) -> str:
    run = runs[0]
    what = {"select": "the scenes to choose by", "report": "scenes that nothing was chosen by"}[study.table]
    parts = [f"{run.data} at {run.size} px, {what}", "mean ± standard deviation over the seeds"]
    if shared:
        parts.append("in brackets: share of the way from doing nothing to the ceiling (KID's is real beside real)")
    on = {_machine(speed) for setting in study.settings if (speed := results.speed(setting, run.size))}
    if study.minutes and on:
        parts.append(f"{study.minutes:g} minutes a run of {'; '.join(sorted(on))}")
    return "; ".join(parts) + "."


def _machine(speed: dict[str, Any]) -> str:
    at_once = f", {speed['jobs']} runs at once" if speed["jobs"] > 1 else ""
    return f"{speed['machine']} ({speed['cores']} cores{at_once}, {speed['precision']}, torch {speed['torch']})"
