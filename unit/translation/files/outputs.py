"""Which outputs may be written."""

from __future__ import annotations

import os
from pathlib import Path

from unit.errors import escape
from unit.images import can_mark
from unit.translation.files.jobs import Job, is_folder


def reason_not_to_write(
    job: Job, inputs: set[tuple[int, int]], folders: set[str], taken: set[str], marked: bool
) -> str | None:
    """Say why the outputs may not be written; otherwise add them to `taken`.

    Args:
        job: whose outputs.
        inputs: identities of the inputs' files.
        folders: real paths of the inputs' folders.
        taken: real paths of other outputs.
        marked: outputs say that they are outputs, where their format holds it.
    """
    for output in job.outputs:
        folder = os.path.realpath(output.parent)  # a link at the output's own path is replaced, not followed
        if identity_of(output) in inputs:
            return f"{escape(output)} is an input"
        if is_folder(output):
            return f"{escape(output)} is a folder"
        if job.folder and not Path(folder).is_relative_to(os.path.realpath(job.folder)):
            return f"{escape(output.parent)} is a link that leads out of --out"
        if job.folder and folder in folders and not (marked and can_mark(output)):
            reason = f"as {escape(output.suffix)} files hold no mark" if marked else "without a mark"
            return f"{escape(output)} could not be told from an input, {reason}"
        if f"{folder}/{output.name}" in taken:
            return f"{escape(output)} is, through a link, another image's output too"
        taken.add(f"{folder}/{output.name}")
    return None


def identity_of(path: Path) -> tuple[int, int] | None:
    """Identify a file, however its path is written; None if there is none."""
    try:
        status = Path(os.path.realpath(path)).stat()  # missing/../x.png is x.png as soon as missing has been made
    except OSError:
        return None
    return status.st_dev, status.st_ino
