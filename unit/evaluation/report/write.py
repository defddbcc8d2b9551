"""A run as one HTML file that loads nothing from elsewhere, rendered by page.html's macros()."""

from __future__ import annotations

import base64
import hashlib
import logging
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from markupsafe import escape as escape_markup

from unit.devices import out_of_memory
from unit.errors import UserError, escape
from unit.evaluation.metric_table import Metrics
from unit.evaluation.report import sections
from unit.evaluation.report.run import Run
from unit.files import atomic_write

log = logging.getLogger(__name__)

REPORT_FILE = "report.html"
_TITLES = {
    "images": "Held-out images",
    "metrics": "Metrics",
    "curves": "Curves",
    "steps": "The same images over the steps",
    "extremes": "Worst and best",
    "data": "Data",
    "configuration": "Configuration",
    "environment": "Environment",
}
"""A function of sections.py, and the macro of page.html that renders its result → the section's heading."""
_ADAPTATION_TITLES = {"accuracy": "Accuracy"} | {
    key: _TITLES[key] for key in ("curves", "steps", "configuration", "environment")
}
"""The sections for a run of `unit adapt`."""


def write_report(
    folder: Path,
    device: str = "auto",
    precision: str = "auto",
    metrics: Metrics | None = None,
    features: str | None = None,
    size: int | None = None,
    seconds: float | None = None,
) -> Path:
    """Write the report of a run, which may still be training, and return its path.

    The file is written atomically, and nothing else is touched; the same run gives the same bytes. A missing part is
    named in its section. The page's policy allows no other style and script than its own.

    Args:
        folder: the run directory.
        device: where to translate the held-out images.
        precision: of the convolutions.
        metrics: of the latest model; None: they are evaluated now.
        features: name of the features behind the given metrics' KID; None: they have none.
        size: the short side at which the network works, like `translate --size`; None: the image's own.
        seconds: that each measurement may take; None: two minutes.

    Raises:
        ConfigError: the folder is not a run directory.
        UserError: the file can't be written.
    """
    run = Run(folder, device, precision, size, seconds)
    titles = _ADAPTATION_TITLES if run.adaptation else _TITLES
    parts = [_section("introduction", run), macros().navigation(titles.items())]
    for key, title in titles.items():
        given = (metrics, features) if key == "metrics" else ()
        parts.append(macros().section(key, title, _section(key, run, *given)))
    style, script = (Markup(_resource(name)) for name in ("style.css", "script.js"))
    hashes = [base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in (style, script)]
    title = f"{' ⇄ '.join(run.names)} · {run.name}"
    page: Markup = macros().page(title, hashes, style, script, Markup("").join(parts))
    atomic_write(folder / REPORT_FILE, page.encode())
    return folder / REPORT_FILE


def write_report_or_warn(folder: Path, *options: Any) -> Path | None:
    """Call `write_report` at the end of a finished run: an error is logged in one line, and None returned."""
    try:
        return write_report(folder, *options)
    except Exception as error:  # no error here is worth losing the training
        reason = escape(" ".join(str(error).split()))
        log.warning("%s: no report was written (%s); python -m unit report writes it", escape(folder), reason)
        return None


def _section(key: str, run: Run, *given: Any) -> Markup:
    """Render a section, or why it is unavailable."""
    try:
        content: Markup = getattr(macros(), key)(**getattr(sections, key)(run, *given))
    except UserError as error:
        content = macros().unavailable(error)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        content = macros().unavailable("out of memory")
    return content


def text(value: object) -> Markup:
    """Convert any value to HTML that displays it: no markup, and control characters written as escapes."""
    return value if isinstance(value, Markup) else escape_markup(escape(str(value)))


def _resource(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


@cache
def macros() -> Any:
    """Compile page.html: its macros as functions that return `Markup`, one for each section, and `page`."""
    environment = Environment(
        autoescape=True, finalize=text, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["thousands"] = "{:,.0f}".format
    return environment.from_string(_resource("page.html")).module
