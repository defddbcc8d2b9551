"""The contents of a report: for each section, the arguments of its macro in page.html."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

from unit.config import Config, DataConfig, RunConfig
from unit.config_file import to_yaml
from unit.digits.config import make_config
from unit.domains import Domain, PerDomain
from unit.errors import ImageError, UserError
from unit.evaluation.evaluate import Evaluator, affordable_count
from unit.evaluation.features import features_if_installed
from unit.evaluation.held_out import readable
from unit.evaluation.metric_table import GROUPS, Metrics, describe_counts, table_rows, verdict
from unit.evaluation.report.charts import charts, draw
from unit.evaluation.report.images import (
    ScoredImage,
    column_titles,
    frames,
    score_images,
    score_name,
    side_by_side,
    worst_and_best,
)
from unit.evaluation.report.run import Run
from unit.evaluation.run_images import EARLIER_PARTS, parts
from unit.evaluation.run_log import RunEnding, last_lines, read_run_endings
from unit.evaluation.st_lpips import st_lpips_if_installed
from unit.image_source import ImageSource
from unit.images import read_header

_SHEET_ROWS = 8
_EXTREMES = 12
_MAX_HEADERS = 200
_MAX_PARTS, _LOG_LINES = 20, 10


def introduction(run: Run) -> dict[str, Any]:
    """The names, how far the run came, and its alarms."""
    try:
        progress = _progress(run)
    except UserError as error:
        progress = str(error)
    return {"names": run.names, "run": run.name, "progress": progress, "alarms": _alarms(run)}


def _progress(run: Run) -> str:
    train, written = (run.adaptation or run.config).train, None
    step = max((max(points) for points in run.log.values()), default=0)
    if not run.adaptation:
        with suppress(UserError):
            written = run.translator.step
            step = max(step, written)
    if step >= train.steps:
        ending = "finished"
    elif written != step:
        ending = "still training, or interrupted"
    else:
        ending = "stopped there" + (f" (train.max_minutes is {train.max_minutes:g})" if train.max_minutes else "")
    device = f" on {run.fact('device')}, {run.fact('precision')}" if run.fact("device") else ""
    return f"{step:,} of {train.steps:,} steps{_duration(run)}{device}; {ending}"


def _duration(run: Run) -> str:
    """Add up the time from the logged speeds."""
    ranks = run.fact("ranks")
    images = 2 * (run.adaptation or run.config).global_batch(
        ranks if isinstance(ranks, int) and 0 < ranks < 10**6 else 1
    )
    minutes, previous = 0.0, 0
    for step, speed in run.log.get("perf/images_per_second", {}).items():
        minutes += (step - previous) * images / speed / 60 if speed > 0 else 0
        previous = step
    if not minutes:
        return ""
    if minutes < 1.5:
        return " in about a minute" if minutes > 0.5 else " in less than a minute"
    return f" in about {minutes:,.0f} minutes" if minutes < 120 else f" in about {minutes / 60:,.1f} hours"


def _alarms(run: Run) -> list[tuple[str, int, int]]:
    """List the alarms that fired, with their first and last step."""
    alarms = []
    for tag, points in run.log.items():
        fired = [step for step, value in points.items() if value and tag.startswith("alarm/")]
        if fired:
            alarms.append((tag.removeprefix("alarm/"), fired[0], fired[-1]))
    return alarms


def images(run: Run) -> dict[str, Any]:
    """The first held-out images and their translations."""
    sources = run.datasets.test.images
    indices = sources.map(lambda source: range(len(source)))
    first = [k for k, _ in readable(sources, PerDomain(*indices), run.data, _SHEET_ROWS, native=True)]
    rows = PerDomain.of(lambda i: [side_by_side(run, i, k, 512) for k in first if k in indices[i]])
    return {"directions": [(column_titles(run, i), rows[i]) for i in Domain]}


def extremes(run: Run) -> dict[str, Any]:
    """The worst and the best translations."""
    test, scores, score = run.datasets.test, score_images(run), score_name(run)
    counts = " and ".join(f"{len(scores[i]):,} from {run.names[i]}" for i in Domain)
    compared = "the translation and the real image of the same scene" if test.paired else "the cycle and the input"

    digits = 3 if score == "SSIM" else 1

    def cards(i: Domain, chosen: list[ScoredImage]) -> list[Any]:
        return [(f"{scored.score:.{digits}f}", side_by_side(run, i, scored.index, 160)) for scored in chosen]

    directions = []
    for i in Domain:
        worst, best = worst_and_best(scores[i], _EXTREMES)
        directions.append((_direction(run, i), [("Worst", cards(i, worst)), ("Best", cards(i, best))]))
    explanation = f"The worst and the best of {counts}, by the {score} of {compared}."
    return {"explanation": explanation, "directions": directions}


def _direction(run: Run, i: Domain) -> str:
    return f"{run.names[i]} → {run.names[i.other]}"


def metrics(run: Run, measured: Metrics | None, features: str | None) -> dict[str, Any]:
    """The metrics beside the identity baseline's and real images'; evaluated here unless they are given."""
    device, test = run.translator.device, run.datasets.test
    extract, st_lpips = features_if_installed(device), None if measured else st_lpips_if_installed(device)
    count = affordable_count(test.images, run.translator, run.size, st_lpips, run.seconds)
    evaluator = Evaluator(test, run.data, extract, count, native=True, size=run.size, st_lpips=st_lpips)
    if measured is None:
        features, measured = extract.name if extract else None, evaluator.metrics(run.translator)
    swapped = evaluator.fits_swapped(run.translator, measured, run.seconds)
    directions = []
    for i in Domain:
        groups = measured[i.direction]
        rows = [[*row[:2], *(cell or "–" for cell in row[2:])] for row in table_rows(groups, features)]
        directions.append((_direction(run, i), verdict(groups, swapped), describe_counts(groups), rows))
    return {"columns": GROUPS, "directions": directions}


def accuracy(run: Run) -> dict[str, Any]:
    """The accuracy of a classifier of digits after the last step, and the best, which the test set has selected."""
    points = run.log.get("val/accuracy")
    if not points:
        raise UserError("metrics.jsonl has no accuracy yet")
    source, target = run.names
    last, best = max(points), max(points, key=lambda step: points[step])
    rows = [(f"{target}, step {last:,} (the last)", f"{points[last]:.4f}")]
    rows.append(
        (f"{target}, step {best:,} (the best: selected on the test set, so not a result)", f"{points[best]:.4f}")
    )
    on_source = run.log.get("val/accuracy_source", {})
    rows += [(f"{source}, step {step:,}", f"{value:.4f}") for step, value in list(on_source.items())[-1:]]
    return {"rows": rows}


def curves(run: Run) -> dict[str, Any]:
    """All curves of metrics.jsonl."""
    drawings = [draw(title, curves) for title, curves in charts(run.log, run.names).items()]
    if not drawings:
        raise UserError("metrics.jsonl has no metrics yet")
    return {"drawings": drawings}


def steps(run: Run) -> dict[str, Any]:
    """The sample grids over the steps."""
    embedded, total = frames(run.path)
    if not embedded:
        raise UserError("the run has no readable samples")
    above, below = (_direction(run, i) for i in Domain)
    columns = "In each row: input, translation, cycle, reconstruction"
    if run.adaptation:
        columns = (
            "Digits of the classes above them, their translations, and the class that the classifier sees in these"
        )
    return {"explanation": f"{columns}; above {above}, below {below}.", "frames": embedded, "total": total}


def data(run: Run) -> dict[str, Any]:
    """The training and test images: how many, where from, and how large."""
    config, counts = run.config.data, [run.fact("training_images"), run.fact("test_images")]
    rows = [(run.names[i], *(_count(fact, k) for fact in counts), _place(config, i)) for k, i in enumerate(Domain)]
    crop = config.crop_size
    remarks = [f"The short side is resized to {config.load_size} pixels; crops are {crop} x {crop}."]
    if skipped := run.log.get("data/bad_images"):
        remarks.append(f"{next(reversed(skipped.values())):,.0f} unreadable training images were skipped.")
    try:
        test = run.datasets.test
        remarks.append(f"The held-out images are {'aligned pairs' if test.paired else 'unpaired'}.")
        remarks += [sizes for i in Domain if (sizes := _sizes(run.names[i], test.images[i]))]
    except UserError as error:
        remarks.append(f"{error}.")
    return {"rows": rows, "remarks": remarks}


def _count(fact: object, k: int) -> str:
    """Format the k-th count of a mapping in environment.json."""
    values = list(fact.values()) if isinstance(fact, dict) else []
    return f"{values[k]:,}" if k < len(values) and isinstance(values[k], int) else "unknown"


def _place(config: DataConfig, i: Domain) -> str:
    folder = PerDomain(config.a, config.b)[i]
    return folder or (f"{config.root}, train{i.upper()}" if config.root else "the built-in synthetic streets")


def _sizes(name: str, source: ImageSource) -> str:
    """The smallest and the largest of some held-out files."""
    sizes = []
    for file in source.files()[:_MAX_HEADERS]:
        with suppress(ImageError):
            header = read_header(Path(file))
            sizes.append((header.width, header.height))
    if not sizes:
        return ""
    low, high = (f"{width} x {height}" for width, height in (min(sizes, key=math.prod), max(sizes, key=math.prod)))
    return f"{name}: files of {low}" + (f" to {high} pixels." if high != low else " pixels.")


def configuration(run: Run) -> dict[str, Any]:
    """The keys that differ from the defaults, then all of them."""
    config: RunConfig = run.adaptation or run.config
    values = config.to_flat_dict()
    defaults = (make_config(run.adaptation.data, "paper") if run.adaptation else Config()).to_flat_dict()
    changed = [(key, value, defaults[key]) for key, value in values.items() if value != defaults[key]]
    return {"changed": changed, "yaml": to_yaml(config).splitlines()}


def environment(run: Run) -> dict[str, Any]:
    """The facts of environment.json, how each part of the run ended, and the end of its log."""
    facts, missing = [], ""
    try:
        shown = {key: value for key, value in run.environment.items() if key not in ("images", EARLIER_PARTS)}
        facts = [(key.replace("_", " "), _plain(value)) for key, value in shown.items()]
        facts += [("earlier part", _plain(part)) for part in parts(run.path)[1:]][:_MAX_PARTS]
    except UserError as error:
        missing = str(error)
    endings = read_run_endings(run.path)[-_MAX_PARTS:]
    rows = [_ending(ending, is_last=ending is endings[-1]) for ending in endings]
    return {"facts": facts, "missing": missing, "parts": rows, "lines": last_lines(run.path, _LOG_LINES)}


def _ending(ending: RunEnding, is_last: bool) -> tuple[str, ...]:
    started = f"{ending.started:%Y-%m-%d %H:%M}"
    if ending.ended is None:
        reason = "no end is recorded: still running, or killed" if is_last else "killed (no end is recorded)"
        return started, "", "", reason
    return started, f"{ending.ended:%Y-%m-%d %H:%M}", f"{ending.step:,}", ending.reason


def _plain(value: object) -> str:
    match value:
        case str():
            return value
        case list() if all(isinstance(word, str) for word in value):
            return " ".join(value)
        case dict():
            return ", ".join(f"{name}: {item}" for name, item in value.items())
    return json.dumps(value, ensure_ascii=False)
