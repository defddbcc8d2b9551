"""A folder's images, byte for byte, in WebDataset shards."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from unit.data.permutation import permute_index
from unit.errors import ConfigError, ImageError, escape
from unit.files import wrap_os_errors
from unit.listing import list_images
from unit.seeds import seed_for


def write_shards(folder: Path, out: Path, images: int, megabytes: int, seed: int = 0) -> str:
    """Write all images below `folder` to shards in `out`, each ended by so many images or megabytes of them.

    Their order follows from `seed`, so that neighbours in the folder, such as frames of one film, lie apart. Returns
    the pattern that names the shards. They appear in `out` all together, at the end.

    Raises:
        DataError: the folder is missing or has no images, or one of them can't be read.
        ConfigError: there are such shards in `out` already.
        UserError: webdataset is missing, or there is no room.
    """
    writer = _webdataset().ShardWriter
    names = list_images(folder)
    stem = re.sub(r"[^\w.-]+", "-", folder.resolve().name).strip(".-") or "shards"
    with wrap_os_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        there = [path.name for path in out.iterdir() if re.fullmatch(re.escape(stem) + r"-[0-9]{6,}\.tar", path.name)]
        if there:
            raise ConfigError(f"{escape(out)}: has {min(there)} already; give another folder, or remove its shards")
        with tempfile.TemporaryDirectory(prefix=f".{stem}-", dir=out) as beside:
            pattern = f"{os.path.abspath(beside)}/{stem}".replace("%", "%%") + "-%06d.tar"  # noqa: PTH100
            # mtime: the same images make the same shards; pax: names of any length and letters.
            options = {"encoder": False, "mtime": 0, "format": "PAX_FORMAT", "verbose": 0}
            with writer(pattern, maxcount=images, maxsize=megabytes * 1e6, **options) as shards:
                for sample in _samples(folder, names, seed):
                    shards.write(sample)
            written = sorted(Path(beside).iterdir())
            for shard in written:
                shard.rename(out / shard.name)
    several = f"{stem}-{{000000..{len(written) - 1:06d}}}.tar"
    return str(out / (several if len(written) > 1 else written[0].name))


def _webdataset() -> Any:
    try:
        import webdataset
    except ImportError as error:
        raise ConfigError("shards: needs the package webdataset; pip install 'webdataset>=1.0'") from error
    return webdataset


def _samples(folder: Path, names: Sequence[str], seed: int) -> Iterator[dict[str, Any]]:
    keys, count, key = _keys(names), len(names), seed_for(seed, "shards")
    places = tqdm(range(count), unit="file", leave=False, disable=not sys.stderr.isatty())
    for index in (permute_index(place, count, key) for place in places):
        path = folder / names[index]
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ImageError(f"{escape(path)}: can't be read ({error.strerror or error}); remove it") from error
        yield {"__key__": keys[index], path.suffix[1:].lower(): content}


def _keys(names: Sequence[str]) -> list[str]:
    """Each path without its ending, and with no dot in its last part, since WebDataset's ending begins at the first.

    Where that makes two the same, as of x.jpg and x.png, the later one gets a number.
    """
    taken: dict[str, None] = {}
    for name in names:
        directory, slash, base = name.rpartition("/")
        plain = directory + slash + os.path.splitext(base)[0].replace(".", "_")  # noqa: PTH122
        key, number = plain, 1
        while key in taken:
            number += 1
            key = f"{plain}-{number}"
        taken[key] = None
    return list(taken)
