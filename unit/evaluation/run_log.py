"""Reading metrics.jsonl, also while it is being written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from unit.errors import UserError, escape


def logged(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (step, line) for each complete line: a crash may have cut the last one short. A missing file has none."""
    if not path.is_file():
        return
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise UserError(f"{escape(path)}: can't be read ({error.strerror}); check its permissions") from error
    for line in lines:
        try:
            yield int(json.loads(line)["step"]), line
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            continue
