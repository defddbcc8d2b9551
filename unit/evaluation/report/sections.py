"""What a report says, section by section."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unit.config import Config, DataConfig
from unit.config_file import to_yaml
from unit.domains import Domain, PerDomain
from unit.errors import ImageError, UserError
from unit.evaluation.evaluate import Evaluator
from unit.evaluation.features import features_if_installed
from unit.evaluation.metric_table import COUNTS, GUESSES, ROWS, Metrics, interval_text, number_text
from unit.evaluation.report.curves import charts
from unit.evaluation.report.drawing import drawn
from unit.evaluation.report.images import (
    Rated,
    frames,
    image_element,
    rated,
    sample_steps,
    score_name,
    side_by_side,
    worst_and_best,
)
from unit.evaluation.report.page import element, paragraph, table, text
from unit.evaluation.report.run import Run
from unit.image_source import ImageSource
from unit.images import read_header

_SHEET_ROWS = 8
_EXTREMES = 12
_THUMBNAIL = 160
_MOST_HEADERS = 200


def introduction(run: Run) -> str:
    """Title, what the run is, and the alarms it gave."""
    a, b = (text(name) for name in run.names)
    title = element("h1", a, element("span", " ⇄ ", class_="arrow"), b)
    return element("header", title, paragraph(_state(run), class_="lead"), _alarms(run))


def _state(run: Run) -> str:
    """One sentence, as far as the parts of it are known."""
    try:
        config = run.config
    except UserError as error:
        return f"Run {_strong(run.name)}: {text(error)}."
    try:
        step = max(run.logged_step, run.translator.step)
        written = run.translator.step
    except UserError:
        step, written = run.logged_step, None
    how = f"{_strong(f'{step:,}')} of {config.train.steps:,} steps"
    return f"Run {_strong(run.name)}: {how}{_duration(run, config)}{_device(run)}; {_ending(config, step, written)}."


def _strong(value: object) -> str:
    return element("strong", text(value))


def _ending(config: Config, step: int, written: int | None) -> str:
    if step >= config.train.steps:
        return "finished"
    if written != step:
        return "still training, or broken off"
    limit = config.train.max_minutes
    return "stopped there" + (f" (train.max_minutes is {limit:g})" if limit else "")


def _duration(run: Run, config: Config) -> str:
    """The time that the logged speeds add up to."""
    ranks = _fact(run, "ranks")
    images = 2 * config.global_batch(ranks if isinstance(ranks, int) and 0 < ranks < 10**6 else 1)
    seconds, before = 0.0, 0
    for step, speed in run.log.get("perf/images_per_second", {}).items():
        seconds += (step - before) * images / speed if speed > 0 else 0
        before = step
    if not seconds:
        return ""
    minutes = seconds / 60
    if minutes < 1.5:
        return " in about a minute" if minutes > 0.5 else " in less than a minute"
    return f" in about {minutes:,.0f} minutes" if minutes < 120 else f" in about {minutes / 60:,.1f} hours"


def _device(run: Run) -> str:
    device, precision = _fact(run, "device"), _fact(run, "precision")
    return f" on {text(device)}, {text(precision)}" if device else ""


def _fact(run: Run, name: str) -> Any:
    try:
        return run.environment.get(name)
    except UserError:
        return None


def _alarms(run: Run) -> str:
    """Which alarms fired, and when first and last; a run without any gets no word about it."""
    fired = {
        tag.removeprefix("alarm/"): [step for step, value in points.items() if value]
        for tag, points in run.log.items()
        if tag.startswith("alarm/")
    }
    items = [
        element("li", _strong(name), f": step {steps[0]:,}" + (f" to {steps[-1]:,}" if len(steps) > 1 else ""))
        for name, steps in fired.items()
        if steps
    ]
    return element("div", element("h2", "Alarms"), element("ul", *items), class_="alarms") if items else ""


class HeldOutImages:
    """What the model makes of the held-out images; each rated once, for the sheet and for worst and best."""

    def __init__(self, run: Run) -> None:
        self.run, self.ratings = run, rated(run)

    def sheet(self) -> str:
        """The first few both ways."""
        blocks = [self._block(i) for i in Domain]
        words = "Training never saw these images; beside each is what the model makes of it."
        return paragraph(words) + element("div", *blocks, class_="sides")

    def extremes(self) -> str:
        """The worst and the best few both ways."""
        a, b = (f"{len(ratings):,}" for ratings in self.ratings)
        words = (
            f"The worst and the best of {a} from {text(self.run.names.a)} and {b} from {text(self.run.names.b)}, by "
        )
        if self.run.datasets.test.paired:
            words += f"the {score_name(self.run)} of the translation beside the real image of the same scene."
        else:
            words += f"{score_name(self.run)}: what comes back from the translation, beside the image itself."
        return paragraph(words) + "".join(self._of_direction(i) for i in Domain)

    def _heads(self, i: Domain) -> list[str]:
        names = self.run.names
        return [names[i], f"→ {names[i.other]}", *([f"real {names[i.other]}"] if self.run.datasets.test.paired else [])]

    def _block(self, i: Domain) -> str:
        heads = self._heads(i)
        cells = [element("span", text(head), class_="head") for head in heads]
        for rating in self.ratings[i][:_SHEET_ROWS]:
            cells += self._images(i, rating, 256)
        return element("div", *cells, class_=f"sheet of{len(heads)}")

    def _images(self, i: Domain, rating: Rated, longest: int) -> list[str]:
        name = self.run.datasets.test.images[i].name(rating.index)
        images = side_by_side(self.run, i, rating.index)
        return [
            image_element(image, f"{head}: {name}", longest, title=name)
            for head, image in zip(self._heads(i), images, strict=True)
        ]

    def _of_direction(self, i: Domain) -> str:
        heading = element("h3", f"{text(self.run.names[i])} → {text(self.run.names[i.other])}")
        worst, best = worst_and_best(self.ratings[i], _EXTREMES)
        if not worst:
            return heading + paragraph("There is only one image, and so no worst and best.", class_="missing")
        return heading + "".join(
            element("h4", label) + element("div", *(self._card(i, rating) for rating in chosen), class_="cards")
            for label, chosen in (("Worst", worst), ("Best", best))
        )

    def _card(self, i: Domain, rating: Rated) -> str:
        name = self.run.datasets.test.images[i].name(rating.index)
        images = element("div", *self._images(i, rating, _THUMBNAIL), class_="trio")
        score = element("b", f"{rating.score:.3f}" if score_name(self.run) == "SSIM" else f"{rating.score:.1f}")
        return element(
            "figure", images, element("figcaption", score, " ", element("span", text(name), title=name)), class_="card"
        )


def metrics(run: Run, measured: Metrics | None, features: str | None) -> str:
    """The metrics beside do-nothing and real; measured here unless they are given."""
    if measured is None:
        extract = features_if_installed(run.translator.device)
        features = extract.name if extract else None
        measured = Evaluator(run.datasets.test, run.data, extract).metrics(run.translator)
    blocks = [_metrics_of(run, i, measured[i.direction], features) for i in Domain]
    words = (
        "Do nothing: the input left as it is. Real: what real images reach. Better: where to a metric should go; "
        "as real: neither more nor less than real images have."
    )
    return element("div", *blocks, class_="sides") + paragraph(words, class_="quiet")


def _metrics_of(run: Run, i: Domain, groups: Mapping[str, Mapping[str, float | None]], features: str | None) -> str:
    counts = " images beside ".join(f"{groups['translated'][name] or 0:,.0f}" for name in COUNTS)
    heading = element("h3", f"{text(run.names[i])} → {text(run.names[i.other])}")
    rows = []
    for name, (label, better, factor, decimals) in ROWS.items():
        values = [groups[guess][name] for guess in GUESSES]
        if any(value is not None for value in values):
            cells = [text(number_text(value, factor, decimals)) for value in values]
            if name == "kid":
                intervals = [interval_text(dict(groups[guess])) for guess in GUESSES]
                cells = [c + element("small", text(interval)) for c, interval in zip(cells, intervals, strict=True)]
            rows.append([text(label.format(features=features)), text(better), *cells])
    kid = ", and below KID where 95 % of its resamples lie" if groups["translated"]["kid"] is not None else ""
    metrics_table = table(["", "better", *map(text, GUESSES.values())], rows, "metrics")
    return element("div", heading, paragraph(f"{counts} real{kid}.", class_="quiet"), metrics_table)


def curves(run: Run) -> str:
    """All of metrics.jsonl."""
    drawings = [drawn(chart) for chart in charts(run.log, run.names)]
    if not drawings:
        raise UserError("metrics.jsonl holds no metrics yet")
    words = "Each loss weighted as it enters the sum. The legend has the last values, and those under the pointer."
    return paragraph(words, class_="quiet") + element("div", *drawings, class_="charts")


def slider(run: Run) -> str:
    """The sample sheets over the steps."""
    all_steps = sample_steps(run.path)
    shown = frames(all_steps)
    if not shown:
        raise UserError("the run's folder has no samples that can be read")
    above, below = (f"{text(run.names[i])} → {text(run.names[i.other])}" for i in Domain)
    words = (
        f"In each row: input, translation, there and back, reconstruction; above {above}, below {below}. "
        f"{len(shown):,} of {len(all_steps):,} sheets."
    )
    last = len(shown) - 1
    controls = element(
        "div",
        element("button", "▶", type="button", aria_label="play"),
        element("input", type="range", min=0, max=last, value=last, step=1, aria_label="step"),
        element("output", f"step {shown[-1][0]:,}"),
        class_="controls",
    )
    images = element("div", *(image for _, image in shown), class_="frames")
    return paragraph(words) + element("div", controls, images, class_="slider")


def data(run: Run) -> str:
    """What the run was trained and is tested on."""
    config = run.config.data
    trained, held = (_fact(run, f"{what}_images") for what in ("training", "test"))
    rows = [
        [text(run.names[i]), *(text(_count(fact, k)) for fact in (trained, held)), text(_place(config, i))]
        for k, i in enumerate(Domain)
    ]
    counts = table(["", "training images", "held out", "from"], rows)
    words = [f"Short side scaled to {config.load_size} pixels; {config.crop_size} x {config.crop_size} are cut out."]
    if skipped := run.log.get("data/bad_images"):
        words.append(f"{next(reversed(skipped.values())):,.0f} training images could not be read and were skipped.")
    try:
        test = run.datasets.test
        words.append("The held-out images are aligned pairs." if test.paired else "The held-out images are no pairs.")
        words += [found for i in Domain if (found := _sizes(run.names[i], test.images[i]))]
    except UserError as error:
        words.append(f"{error}.")
    return counts + paragraph(" ".join(map(text, words)))


def _count(fact: object, k: int) -> str:
    """The k-th of the counts that environment.json has by name."""
    values = list(fact.values()) if isinstance(fact, dict) else []
    return f"{values[k]:,}" if k < len(values) and isinstance(values[k], int) else "unknown"


def _place(config: DataConfig, i: Domain) -> str:
    folder = PerDomain(config.a, config.b)[i]
    return folder or (f"{config.root}, train{i.upper()}" if config.root else "the embedded streets")


def _sizes(name: str, source: ImageSource) -> str:
    """The smallest and the largest of some held-out files."""
    sizes = []
    for file in source.files()[:_MOST_HEADERS]:
        try:
            header = read_header(Path(file))
        except ImageError:
            continue
        sizes.append((header.width, header.height))
    if not sizes:
        return ""
    least, most = (f"{width} x {height}" for width, height in (min(sizes, key=_area), max(sizes, key=_area)))
    return f"{name}: files of {least}" + (f" to {most} pixels." if most != least else " pixels.")


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def configuration(run: Run) -> str:
    """What differs from the defaults, then all of it."""
    values, defaults = run.config.to_flat_dict(), Config().to_flat_dict()
    changed = [[text(key), text(value), text(defaults[key])] for key, value in values.items() if value != defaults[key]]
    whole = "\n".join(text(line) for line in to_yaml(run.config).splitlines())
    details = element("details", element("summary", "All keys"), element("pre", whole))
    same = paragraph("All keys have their defaults.")
    return (table(["key", "value", "default"], changed) if changed else same) + details


def environment(run: Run) -> str:
    """environment.json, a line for each fact."""
    return table([], [[text(key.replace("_", " ")), text(_plain(value))] for key, value in run.environment.items()])


def _plain(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return " ".join(value)
    if isinstance(value, dict):
        return ", ".join(f"{name}: {each}" for name, each in value.items())
    return json.dumps(value, ensure_ascii=False)
