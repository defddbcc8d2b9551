"""The images of a run, also where the run was moved together with them."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from unit.config import Config, with_absolute_folders
from unit.config_file import read_config
from unit.data.datasets import Datasets, image_changes, open_datasets
from unit.data.shards import is_shards
from unit.errors import ConfigError, DataError, UserError, escape
from unit.files import read_file

log = logging.getLogger(__name__)
_Data = TypeVar("_Data")

CONFIG_FILE, ENVIRONMENT_FILE, EARLIER_PARTS = "config.yaml", "environment.json", "earlier_parts"
_MAX_BYTES = 10_000_000


def read_environment(run: Path) -> dict[str, Any]:
    """Read a run's environment.json.

    Raises:
        UserError: it is missing, or not a JSON object.
    """
    file = run / ENVIRONMENT_FILE
    try:
        content = json.loads(read_file(file, _MAX_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        detail = f" ({error.strerror})" if isinstance(error, OSError) else ""
        reason = "is missing" if isinstance(error, FileNotFoundError) else f"can't be read{detail}"
        raise UserError(f"{escape(file)}: {reason}") from error
    if not isinstance(content, dict):
        raise UserError(f"{escape(file)}: not a JSON object")
    return content


def parts(run: Path) -> list[dict[str, Any]]:
    """Return environment.json's entries for the parts of a run, newest first; none where it can't be read."""
    try:
        environment = read_environment(run)
    except UserError:
        return []
    earlier = environment.pop(EARLIER_PARTS, None)
    earlier = [part for part in earlier if isinstance(part, dict)] if isinstance(earlier, list) else []
    return [environment, *earlier[::-1]]


def locate(data: _Data, run: Path) -> _Data:
    """Make the folders absolute; where one is gone, take that at the same place relative to the run, if there is one.

    So a run may be moved together with its images; the caller compares the digests.
    """
    return with_absolute_folders(data, moved_with(run))


def moved_with(run: Path) -> Callable[[str], str]:
    """Return a function of absolute paths: where one is gone, the same place relative to the run, if that exists."""
    earlier = [part["run"] for part in parts(run) if isinstance(part.get("run"), str) and os.path.isabs(part["run"])]  # noqa: PTH117
    now = os.path.abspath(run)  # noqa: PTH100 - the paths that the user gave, links and all

    def moved(folder: str) -> str:
        moved = (os.path.normpath(os.path.join(now, os.path.relpath(folder, before))) for before in earlier)  # noqa: PTH118
        return folder if _exists(folder) else next(filter(_exists, moved), folder)

    return moved


def _exists(folder: str) -> bool:
    return "\0" not in folder and os.path.exists(Path(folder).parent if is_shards(Path(folder)) else folder)  # noqa: PTH110


def _run_config(run: Path, model: Config) -> Config:
    """Return the configuration of a run directory; where it holds none, the model's, if that tells the folders.

    Raises:
        ConfigError: the images of the model are unknown, as it has left its run.
    """
    if (run / CONFIG_FILE).is_file():
        return read_config(run / CONFIG_FILE)
    given = next((folder for folder in (model.data.root, model.data.a) if folder), "/")
    if not os.path.isabs(given):  # noqa: PTH117
        raise ConfigError(f"{escape(run)}: holds no {CONFIG_FILE}, so the model's images are unknown; give folders")
    return model


def open_run_datasets(run: Path, config: Config) -> Datasets:
    """Open the images of a run, as its latest part saw them.

    Args:
        run: the run directory, whose config.yaml tells the folders.
        config: of the model, where there is no config.yaml.

    Raises:
        ConfigError: nothing tells the folders.
        DataError: they are gone, or the run was moved and other images lie where they would be.
    """
    config = _run_config(run, config)
    data = locate(config.data, run)
    datasets = open_datasets(data, config.train.seed)
    stored = next((part.get("images") for part in parts(run)), None)
    changes = image_changes(stored if isinstance(stored, Mapping) else {}, datasets.digests(), ("names", "sizes"))
    if changes and data != with_absolute_folders(config.data):
        raise DataError(
            f"{escape(run)}: was moved, and where its images would be lie others ({'; '.join(changes)}); move the "
            "images along, or give folders"
        )
    if changes:
        log.warning("%s: since the run's last part: %s", escape(run), "; ".join(changes))
    given = next((folder for folder in (config.data.root, config.data.a) if folder), "/")
    if not given.startswith("~") and not os.path.isabs(given):  # noqa: PTH117
        source = next(iter(datasets.test.images))
        log.warning(
            "%s: of an earlier version, which stored folders as they were given; reading %s",
            *(escape(run), escape(source.folder or given)),
        )
    return datasets
