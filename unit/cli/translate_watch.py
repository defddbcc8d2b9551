"""`translate --watch FOLDER`."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from unit.cli.translate_summary import Summary
from unit.errors import ConfigError, escape
from unit.images import SUFFIXES
from unit.listing import require_folder
from unit.translation.files.jobs import is_folder, plan_jobs

if TYPE_CHECKING:
    from unit.translation.files.image_files import Settings
    from unit.translation.translator import Translator

log = logging.getLogger(__name__)


def run(
    arguments: argparse.Namespace,
    suffix: str | None,
    load: Callable[[], tuple[Translator, Settings]],
) -> int:
    """Translate what is in a folder and what appears there, until Ctrl-C; return 0 then."""
    if arguments.inputs:
        raise ConfigError(f"--watch: takes no INPUT besides its folder; leave out {escape(arguments.inputs[0])}")
    if arguments.out.suffix.lower() in SUFFIXES and not is_folder(arguments.out):
        raise ConfigError(f"--out {escape(arguments.out)}: --watch writes several images; give a folder")
    plan_jobs([], arguments.out, suffix, None)  # refuses another --out that can't be a folder
    require_folder(arguments.watch)

    from unit.translation.files.image_files import translate_images
    from unit.translation.files.watch import watch
    from unit.translation.frames import SizeWarning

    summary = Summary(arguments)
    with suppress(KeyboardInterrupt):
        translator, settings = load()
        log.info("watching %s; Ctrl-C ends", escape(arguments.watch))
        warning = SizeWarning(translator, settings.source, settings.size)
        translate = partial(translate_images, translator, settings=settings, size_warning=warning)
        for outcome in watch(arguments.watch, arguments.out, suffix, arguments.samples, translate):
            summary.add(outcome)
            if outcome.status == "done" and not arguments.json:
                log.info("%s: translated", escape(outcome.input))
    summary.log()
    return 0
