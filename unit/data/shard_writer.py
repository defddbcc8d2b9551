"""Copy a folder's images, byte for byte, into WebDataset shards."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from unit.errors import ConfigError, ImageError, escape
from unit.files import read_file, wrap_os_errors
from unit.images import MAX_BYTES
from unit.listing import list_images, require_folder
from unit.seeds import seed_for


def write_shards(folder: Path, out: Path, images: int, megabytes: int, seed: int = 0) -> str:
    """Write all images below `folder` to shards in `out`, which appear there all together, at the end.

    Args:
        images: maximum images per shard.
        megabytes: maximum size of a shard.
        seed: seed of a random order, by which neighbours in the folder, such as frames of one film, are separated.

    Returns:
        The pattern that stands for the shards.

    Raises:
        DataError: the folder is missing or has no images, or one of them can't be read.
        ConfigError: `out` has such shards already, or webdataset is missing.
        UserError: the shards can't be written.
    """
    require_folder(folder)
    try:
        from webdataset import ShardWriter
    except ImportError as error:
        raise ConfigError("shards: needs the package webdataset; pip install 'webdataset>=1.0'") from error
    names = list_images(folder)
    stem = re.sub(r"[^\w.-]+", "-", folder.resolve().name).strip(".-") or "shards"
    with wrap_os_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        existing = [
            path.name for path in out.iterdir() if re.fullmatch(re.escape(stem) + r"-[0-9]{6,}\.tar", path.name)
        ]
        if existing:
            raise _exists_already(out / min(existing))
        with tempfile.TemporaryDirectory(prefix=f".{stem}-", dir=out) as temporary:
            pattern = f"{os.path.abspath(temporary)}/{stem}".replace("%", "%%") + "-%06d.tar"  # noqa: PTH100
            # mtime: the same images give the same shards; pax: names of any length and script.
            options = {"encoder": False, "mtime": 0, "format": "PAX_FORMAT", "verbose": 0}
            with ShardWriter(pattern, maxcount=images, maxsize=megabytes * 1e6, **options) as shards:
                for sample in _samples(folder, names, seed):
                    shards.write(sample)
            written = sorted(Path(temporary).iterdir())
            for shard in written:
                _move(shard, out / shard.name)
    pattern = f"{stem}-{{000000..{len(written) - 1:06d}}}.tar"
    return str(out / (pattern if len(written) > 1 else written[0].name))


def _move(shard: Path, target: Path) -> None:
    """Rename a shard, but never over one that another process has written since the folder was looked at."""
    try:
        os.link(shard, target)  # a hard link, unlike a new name, replaces nothing
    except FileExistsError:
        raise _exists_already(target) from None
    except OSError:  # this file system has none
        if target.exists():
            raise _exists_already(target) from None
        shard.rename(target)


def _exists_already(shard: Path) -> ConfigError:
    return ConfigError(f"{escape(shard.parent)}: has {shard.name} already; give another folder, or remove its shards")


def _samples(folder: Path, names: Sequence[str], seed: int) -> Iterator[dict[str, Any]]:
    import torch  # takes seconds, which mistakes need not wait for

    keys = _keys(names)
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed_for(seed, "shards"))).tolist()
    for index in tqdm(order, unit="file", leave=False, disable=not sys.stderr.isatty()):
        path = folder / names[index]
        try:
            content = read_file(path, MAX_BYTES)
        except OSError as error:
            raise ImageError(f"{escape(path)}: can't be read ({error.strerror or error}); remove it") from error
        yield {"__key__": keys[index], path.suffix[1:].lower(): content}


def _keys(names: Sequence[str]) -> list[str]:
    """Make WebDataset keys: paths without suffix and without dots in the base name, where a key ends at the first.

    Where two would be equal, as of x.jpg and x.png, the later one gets a number.
    """
    taken: dict[str, None] = {}
    for name in names:
        directory, slash, base = name.rpartition("/")
        stem = directory + slash + os.path.splitext(base)[0].replace(".", "_")  # noqa: PTH122
        key, number = stem, 1
        while key in taken:
            number += 1
            key = f"{stem}-{number}"
        taken[key] = None
    return list(taken)
