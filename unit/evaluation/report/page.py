"""HTML in which whatever a user named stays text."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Sequence
from importlib import resources

from unit.errors import escape

_EMPTY = frozenset({"img", "input", "meta", "link"})


def text(value: object) -> str:
    """Any value as HTML that shows it: nothing in it is markup, and what can't be seen is written as an escape."""
    return html.escape(escape(str(value)))


def element(tag: str, *content: str, **attributes: object) -> str:
    """An element of `content`, which is HTML, and of attributes, which are text: `class_` is class, True is bare."""
    words = [tag]
    for name, value in attributes.items():
        name = name.rstrip("_").replace("_", "-")
        words += [name] if value is True else [] if value is False else [f'{name}="{text(value)}"']
    opening = f"<{' '.join(words)}>"
    return opening if tag in _EMPTY else f"{opening}{''.join(content)}</{tag}>"


def paragraph(*content: str, class_: str | None = None) -> str:
    """HTML as a paragraph."""
    return element("p", *content, **({"class_": class_} if class_ else {}))


def table(head: Sequence[str], rows: Iterable[Sequence[str]], class_: str = "facts") -> str:
    """Cells, of HTML; the first of each row is its heading."""
    first = element("thead", element("tr", *(element("th", cell, scope="col") for cell in head))) if head else ""
    body = [
        element("tr", element("th", name, scope="row"), *(element("td", cell) for cell in cells))
        for name, *cells in rows
    ]
    return element("div", element("table", first, element("tbody", *body), class_=class_), class_="wide")


def section(key: str, title: str, content: str) -> str:
    """A section with an anchor."""
    return element("section", element("h2", text(title)), content, id=key)


def page(title: str, body: str) -> bytes:
    """The whole file. It may load nothing and run nothing but the style and script that are in it."""
    style, script = (_resource(name) for name in ("style.css", "script.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("link", rel="icon", href="data:,"),
        element("title", text(title)),
        element("style", style),
    )
    main = element("body", element("main", body), element("script", script))
    return f"<!doctype html>\n{element('html', head, main, lang='en')}\n".encode()


def _resource(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
