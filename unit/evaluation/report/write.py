"""A run as one HTML file that loads nothing from elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from unit.errors import UserError, escape
from unit.evaluation.metric_table import Metrics
from unit.evaluation.report import sections
from unit.evaluation.report.page import element, page, paragraph, section, text
from unit.evaluation.report.run import Run
from unit.files import atomic_write

log = logging.getLogger(__name__)

REPORT_FILE = "report.html"


def write_report(
    folder: Path,
    device: str = "auto",
    precision: str = "auto",
    metrics: Metrics | None = None,
    features: str | None = None,
) -> Path:
    """Write RUN/report.html, whole, and touch nothing else; of a part that is missing it says why. Returns its path.

    The same run gives the same bytes, also while it goes on.

    Args:
        folder: the run's.
        device: that translates the held-out images.
        precision: of the convolutions.
        metrics: of the model as it lies there; None: they are measured now.
        features: the name of what those metrics' KID was computed with; None: they have none.

    Raises:
        ConfigError: the folder is no run's.
        UserError: the file can't be written.
    """
    run = Run(folder, device, precision)
    path = folder / REPORT_FILE
    atomic_write(path, _content(run, metrics, features))
    return path


def report_unless_it_fails(
    folder: Path,
    device: str = "auto",
    precision: str = "auto",
    metrics: Metrics | None = None,
    features: str | None = None,
) -> Path | None:
    """`write_report` at the end of a run, which has done its work: an error is a line in the log, and None."""
    try:
        return write_report(folder, device, precision, metrics, features)
    except Exception as error:  # whatever it is, the training is not lost for it
        reason = escape(" ".join(str(error).split()))
        log.warning("%s: no report was written (%s); python -m unit report writes it", escape(folder), reason)
        return None


def _content(run: Run, measured: Metrics | None, features: str | None) -> bytes:
    """The sections in their order; one that fails says why, in its place."""
    held_out: list[sections.HeldOutImages] = []

    def images() -> sections.HeldOutImages:
        if not held_out:
            held_out.append(sections.HeldOutImages(run))
        return held_out[0]

    parts: list[tuple[str, str, Callable[[], str]]] = [
        ("images", "Held-out images", lambda: images().sheet()),
        ("metrics", "Metrics", lambda: sections.metrics(run, measured, features)),
        ("curves", "Curves", lambda: sections.curves(run)),
        ("steps", "The same images over the steps", lambda: sections.slider(run)),
        ("extremes", "Worst and best", lambda: images().extremes()),
        ("data", "Data", lambda: sections.data(run)),
        ("configuration", "Configuration", lambda: sections.configuration(run)),
        ("environment", "Environment", lambda: sections.environment(run)),
    ]
    links = element("nav", *(element("a", text(title), href=f"#{key}") for key, title, _ in parts))
    body = [section(key, title, _or_why_not(build)) for key, title, build in parts]
    return page(
        f"{' ⇄ '.join(run.names)} · {run.name}", _or_why_not(lambda: sections.introduction(run)) + links + "".join(body)
    )


def _or_why_not(build: Callable[[], str]) -> str:
    try:
        return build()
    except UserError as error:
        return paragraph(text(f"Not to be had: {error}."), class_="missing")
