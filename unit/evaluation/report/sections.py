"""What a report says: for each section the arguments of its macro in page.html."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from unit.config import Config, DataConfig
from unit.config_file import to_yaml
from unit.domains import Domain, PerDomain
from unit.errors import ImageError, UserError
from unit.evaluation.evaluate import Evaluator
from unit.evaluation.features import features_if_installed
from unit.evaluation.metric_table import COUNTS, GROUPS, ROWS, Metrics, interval_text
from unit.evaluation.report.charts import charts, draw
from unit.evaluation.report.images import (
    Embedded,
    Rated,
    frames,
    heads,
    sample_steps,
    score_name,
    side_by_side,
    worst_and_best,
)
from unit.evaluation.report.run import Run
from unit.image_source import ImageSource
from unit.images import read_header

_SHEET_ROWS = 8
_EXTREMES = 12
_MAX_HEADERS = 200


def introduction(run: Run) -> dict[str, Any]:
    """The names, how far the run came, and its alarms."""
    error, progress = "", {}
    try:
        progress = _progress(run)
    except UserError as reason:
        error = str(reason)
    return {"names": run.names, "run": run.name, "error": error, "progress": progress, "alarms": _alarms(run)}


def _progress(run: Run) -> dict[str, Any]:
    train = run.config.train
    step, written = run.logged_step, None
    try:
        written = run.translator.step
        step = max(step, written)
    except UserError:
        pass
    if step >= train.steps:
        ending = "finished"
    elif written != step:
        ending = "still training, or interrupted"
    else:
        ending = "stopped there" + (f" (train.max_minutes is {train.max_minutes:g})" if train.max_minutes else "")
    device = run.fact("device")
    return {
        "step": step,
        "steps": train.steps,
        "duration": _duration(run),
        "device": f" on {device}, {run.fact('precision')}" if device else "",
        "ending": ending,
    }


def _duration(run: Run) -> str:
    """Add up the time from the logged speeds."""
    ranks = run.fact("ranks")
    images = 2 * run.config.global_batch(ranks if isinstance(ranks, int) and 0 < ranks < 10**6 else 1)
    seconds, previous = 0.0, 0
    for step, speed in run.log.get("perf/images_per_second", {}).items():
        seconds += (step - previous) * images / speed if speed > 0 else 0
        previous = step
    if not seconds:
        return ""
    minutes = seconds / 60
    if minutes < 1.5:
        return " in about a minute" if minutes > 0.5 else " in less than a minute"
    return f" in about {minutes:,.0f} minutes" if minutes < 120 else f" in about {minutes / 60:,.1f} hours"


def _alarms(run: Run) -> list[tuple[str, int, int]]:
    """List the alarms that fired, with their first and last step."""
    fired = {
        tag.removeprefix("alarm/"): [step for step, value in points.items() if value]
        for tag, points in run.log.items()
        if tag.startswith("alarm/")
    }
    return [(name, steps[0], steps[-1]) for name, steps in fired.items() if steps]


def images(run: Run, ratings: PerDomain[list[Rated]]) -> dict[str, Any]:
    """The first held-out images and their translations."""
    rows = PerDomain.of(lambda i: [side_by_side(run, i, rating.index, 256) for rating in ratings[i][:_SHEET_ROWS]])
    return {"directions": [(heads(run, i), rows[i]) for i in Domain]}


def extremes(run: Run, ratings: PerDomain[list[Rated]]) -> dict[str, Any]:
    """The worst and the best translations."""
    score, (a, b) = score_name(run), (f"{len(ratings[i]):,} from {run.names[i]}" for i in Domain)
    paired = run.datasets.test.paired
    compared = "of the translation and the real image of the same scene" if paired else "of the cycle and the input"

    def card(i: Domain, rating: Rated) -> tuple[str, str, list[Embedded]]:
        value = f"{rating.score:.3f}" if score == "SSIM" else f"{rating.score:.1f}"
        return value, run.datasets.test.images[i].name(rating.index), side_by_side(run, i, rating.index, 160)

    def groups(i: Domain) -> list[tuple[str, list[Any]]]:
        both = zip(("Worst", "Best"), worst_and_best(ratings[i], _EXTREMES), strict=True)
        return [(label, [card(i, rating) for rating in chosen]) for label, chosen in both]

    return {
        "explanation": f"The worst and the best of {a} and {b}, by the {score} {compared}.",
        "directions": [(_direction(run, i), groups(i)) for i in Domain],
    }


def _direction(run: Run, i: Domain) -> str:
    return f"{run.names[i]} → {run.names[i.other]}"


def metrics(run: Run, measured: Metrics | None, features: str | None) -> dict[str, Any]:
    """The metrics beside the identity baseline's and real images'; evaluated here unless they are given."""
    if measured is None:
        extract = features_if_installed(run.translator.device)
        features = extract.name if extract else None
        measured = Evaluator(run.datasets.test, run.data, extract).metrics(run.translator)
    directions = []
    for i in Domain:
        groups = [measured[i.direction][group] for group in GROUPS]
        rows = [
            (
                row.label.format(features=features),
                row.better,
                [(row.text(group[name]), interval_text(group) if name == "kid" else "") for group in groups],
            )
            for name, row in ROWS.items()
            if any(group[name] is not None for group in groups)
        ]
        counts = "{:,.0f} images vs. {:,.0f} real".format(*(groups[0][name] or 0 for name in COUNTS))
        counts += ", and below KID its 95 % bootstrap interval" if groups[0]["kid"] is not None else ""
        directions.append((_direction(run, i), counts, GROUPS, rows))
    return {"directions": directions}


def curves(run: Run) -> dict[str, Any]:
    """All curves of metrics.jsonl."""
    drawings = [draw(chart) for chart in charts(run.log, run.names)]
    if not drawings:
        raise UserError("metrics.jsonl has no metrics yet")
    return {"drawings": drawings}


def steps(run: Run) -> dict[str, Any]:
    """The sample grids over the steps."""
    available = sample_steps(run.path)
    embedded = frames(available)
    if not embedded:
        raise UserError("the run has no readable samples")
    above, below = (_direction(run, i) for i in Domain)
    return {"above": above, "below": below, "frames": embedded, "total": len(available)}


def data(run: Run) -> dict[str, Any]:
    """What the run was trained and is tested on."""
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
        try:
            header = read_header(Path(file))
        except ImageError:
            continue
        sizes.append((header.width, header.height))
    if not sizes:
        return ""
    low, high = (f"{width} x {height}" for width, height in (min(sizes, key=_area), max(sizes, key=_area)))
    return f"{name}: files of {low}" + (f" to {high} pixels." if high != low else " pixels.")


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def configuration(run: Run) -> dict[str, Any]:
    """The keys that differ from the defaults, then all of them."""
    values, defaults = run.config.to_flat_dict(), Config().to_flat_dict()
    changed = [(key, value, defaults[key]) for key, value in values.items() if value != defaults[key]]
    return {"changed": changed, "yaml": to_yaml(run.config).splitlines()}


def environment(run: Run) -> dict[str, Any]:
    """The facts of environment.json."""
    return {"rows": [(key.replace("_", " "), _plain(value)) for key, value in run.environment.items()]}


def _plain(value: object) -> str:
    match value:
        case str():
            return value
        case list() if all(isinstance(word, str) for word in value):
            return " ".join(value)
        case dict():
            return ", ".join(f"{name}: {item}" for name, item in value.items())
    return json.dumps(value, ensure_ascii=False)
