"""page.html rendered so that whatever a user named stays text, and the page loads and runs nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from markupsafe import escape as escape_markup

from unit.errors import escape


def text(value: object) -> Markup:
    """Convert any value to HTML that displays it: no markup, and control characters written as escapes."""
    return value if isinstance(value, Markup) else escape_markup(escape(str(value)))


def _resource(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


_environment = Environment(
    autoescape=True, finalize=text, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_environment.globals["thousands"] = "{:,.0f}".format
macros: Any = _environment.from_string(_resource("page.html")).module
"""The macros of page.html as functions that return `Markup`: one for each section, and `page`."""


def page(title: str, content: Markup) -> bytes:
    """Render the whole file; its policy allows no other style and script than its own."""
    style, script = (Markup(_resource(name)) for name in ("style.css", "script.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    html: Markup = macros.page(title, policy, style, script, content)
    return html.encode()


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
