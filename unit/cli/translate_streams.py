"""`translate` with `-` for INPUT, --out or both: one image from standard input, or to standard output."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from unit.cli.translate_summary import Summary
from unit.errors import ConfigError, ImageError, escape
from unit.files import atomic_write, read_file
from unit.images import MAX_BYTES, format_of, image_errors
from unit.translation.files.jobs import Outcome, is_folder

if TYPE_CHECKING:
    from unit.translation.files.image_files import Settings
    from unit.translation.translator import Translator

log = logging.getLogger(__name__)


def run(
    arguments: argparse.Namespace,
    suffix: str | None,
    load: Callable[[], tuple[Translator, Settings]],
) -> int:
    """Translate one image; return the exit status.

    Raises:
        UserError: it can't be read, translated or written.
    """
    _require_one_image(arguments)
    (source,), out = arguments.inputs, arguments.out
    to_file = str(out) != "-"
    if to_file and os.path.lexists(out) and not arguments.overwrite:
        log.warning("%s: exists already; --overwrite replaces it", escape(out))
        return 0
    image_format = format_of(out) if to_file else format_of(Path(f"-{suffix}")) if suffix else None
    content, name = _read(source)

    from unit.translation.files.streams import translate_bytes

    translator, settings = load()
    output, lost = translate_bytes(translator, content, name, settings, image_format)
    if to_file:
        atomic_write(out, output, sync=False)
    else:
        sys.stdout.buffer.write(output)
    summary = Summary(arguments)
    summary.add(Outcome(source, "done", (out,), lost=tuple(lost)))
    summary.log()
    return 0


def _require_one_image(arguments: argparse.Namespace) -> None:
    out = arguments.out
    if len(arguments.inputs) != 1:
        raise ConfigError("-: is one image; give one INPUT")
    if arguments.samples is not None and arguments.samples > 1:
        raise ConfigError("--samples: standard input and output hold one image; give files and a folder")
    if str(out) == "-":
        if arguments.json:
            raise ConfigError("--json: --out - takes standard output; give a file")
        if sys.stdout.isatty():
            raise ConfigError("--out -: standard output is a terminal; redirect it into a file or a program")
        if is_folder(arguments.inputs[0]):
            raise ConfigError(f"--out -: {escape(arguments.inputs[0])} is a folder; give one image")
    elif is_folder(out):
        raise ConfigError(f"--out {escape(out)}: an image from standard input has no name; give a file")
    if arguments.inputs[0] != "-":
        return
    with suppress(OSError):  # no such file, or standard input is none
        if os.path.samestat(os.fstat(sys.stdin.fileno()), out.stat()):
            raise ConfigError(f"--out {escape(out)}: is the input; give another file")
    if sys.stdin.isatty():
        raise ConfigError("-: standard input is a terminal; redirect an image into it")


def _read(source: str) -> tuple[bytes, str]:
    """Return the content of a file or of standard input, and what messages call it."""
    if source != "-":
        with image_errors(source):
            return read_file(Path(source), MAX_BYTES), source
    with image_errors("standard input"):
        os.set_blocking(sys.stdin.fileno(), True)  # a program that shares it may have changed that
        content = sys.stdin.buffer.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ImageError(f"standard input: larger than {MAX_BYTES:,} bytes")
    return content, "standard input"
