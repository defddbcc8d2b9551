"""Training photos kept as resized, so that each is decoded once: `data.cache`.

What is kept is checked against the photo's path, date and size and against its own checksum each time: a photo that
changed, or a record that is damaged or somebody else's, means no more than that the photo is read again.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import struct
import sys
import time
import weakref
import zlib
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

import PIL
import torch
from PIL import Image

from unit.config import DataConfig
from unit.data.folders import ImageFolder
from unit.data.shards import Shards
from unit.errors import ConfigError, UserError, escape
from unit.files import atomic_write
from unit.image_source import ImageSource, resized

log = logging.getLogger(__name__)

_FORM = 1
"""To be raised whenever a photo is read or resized otherwise than before."""
_HEAD = struct.Struct("<16sIII")
"""Of a record: the photo's identity, width, height, checksum of the RGB bytes that follow."""
_LEFT_FREE = 2 * 2**30
"""Bytes of memory or disk that are left to the rest of training: checkpoints, growing processes."""
_LONGEST = 8
"""In memory, images of at most so many times their short side; longer ones are read each time."""
_PAGE = 4096
_DAY = 24 * 3600.0
_KEPT = 60 * _DAY
"""On disk, seconds that a record stays which no run reads."""


def cached(source: ImageSource, config: DataConfig) -> ImageSource:
    """The source, with its images kept as `data.cache` says. The embedded streets remember theirs by themselves.

    Raises:
        ConfigError: memory is asked for where there is no Linux, or disk where no folder for caches is known.
    """
    if config.cache == "none" or not isinstance(source, ImageFolder | Shards):
        return source
    size = config.load_size
    store = _Memory(size) if config.cache == "memory" else _Disk(cache_folder(), size)
    return CachedFolder(source, size, store)


class _Store(Protocol):
    """Where records lie. It travels to loader processes, which share what is in it."""

    def read(self, index: int, path: str) -> bytes:
        """What is there for the photo, perhaps nothing or something else; never raises."""
        ...

    def write(self, index: int, path: str, record: bytes) -> None:
        """Raises `OSError` or `UserError` when there is no room or it can't be written."""
        ...


class CachedFolder:
    """A folder or shards as a source that keeps the images, scaled to a short side of `size`, in a store."""

    def __init__(self, folder: ImageFolder | Shards, size: int, store: _Store) -> None:
        self.folder, self.size, self.store = folder, size, store
        self._stopped = torch.zeros(1, dtype=torch.bool).share_memory_()  # keeping, for all loader processes

    def __len__(self) -> int:
        return len(self.folder)

    def name(self, index: int) -> str:
        """As the folder's."""
        return self.folder.name(index)

    def image(self, index: int, short_side: int | None = None) -> Image.Image:
        """Image `index`: scaled, where `short_side` is `size`; else, and where it can't be read, as the folder's."""
        root = os.path.abspath(self.folder.root)  # noqa: PTH100 - links keep their names
        path = os.path.join(root, self.folder.name(index))  # noqa: PTH118
        identity = self._identity(path, self.folder.file(index) if isinstance(self.folder, Shards) else None)
        if identity is None or short_side != self.size:
            return self.folder.image(index, short_side)
        image = _unpacked(self.store.read(index, path), identity, self.size)
        if image is None:
            image = resized(self.folder, index, self.size)
            if not self._stopped:
                self._keep(index, path, _packed(image, identity))
        return image

    def _identity(self, path: str, shard: str | None = None) -> bytes | None:
        """16 bytes that change with the photo or its shard and with what is made of it; None where there is no file."""
        try:
            status = os.stat(shard or path)  # noqa: PTH116
        except OSError:
            return None
        facts = (path, status.st_mtime_ns, status.st_size, self.size, self.folder.max_pixels, PIL.__version__, _FORM)
        return _hash(*facts)

    def _keep(self, index: int, path: str, record: bytes) -> None:
        """Write, or say once that there is no room: training goes on."""
        try:
            self.store.write(index, path, record)
        except (OSError, UserError) as error:
            self._stopped.fill_(True)
            why = (error.strerror if isinstance(error, OSError) else None) or error
            root = escape(self.folder.root)
            log.warning("data.cache: no more images of %s are kept (%s); the others are read each time", root, why)


class _Memory:
    """Records in a file that has no name and lies in memory: gone with the last process that has it open.

    Each photo has its own stretch, of which only what is written takes memory; so no process has to wait for another.
    """

    def __init__(self, size: int) -> None:
        if sys.platform != "linux":
            raise ConfigError("data.cache: memory needs Linux; use disk")
        longest = _HEAD.size + 3 * size * size * _LONGEST
        self._stretch = longest + -longest % _PAGE
        self._own(os.memfd_create("unit-cache"))
        self._way = f"/proc/{os.getpid()}/fd/{self._file}"

    def _own(self, file: int) -> None:
        self._file = file
        weakref.finalize(self, os.close, file)

    def read(self, index: int, path: str) -> bytes:
        start = index * self._stretch
        head = os.pread(self._file, _HEAD.size, start)
        length = _length(head) if len(head) == _HEAD.size else 0
        return os.pread(self._file, min(length, self._stretch), start)

    def write(self, index: int, path: str, record: bytes) -> None:
        if len(record) <= self._stretch:
            _require_room(_free_memory(), len(record), "memory")
            os.pwrite(self._file, record, index * self._stretch)

    def __getstate__(self) -> dict[str, object]:
        return {"_stretch": self._stretch, "_way": self._way}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._own(os.open(self._way, os.O_RDWR))


class _Disk:
    """A file for each photo and size below `folder`; that of a photo that changed is replaced.

    A file's date says when it was last in use, to the day: photos come and go, and nobody else would clear up.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size
        _drop_unused(folder)

    def read(self, index: int, path: str) -> bytes:
        file, record = self._file(path), b""
        with suppress(OSError):
            record = file.read_bytes()
            if _age(file) > _DAY:
                os.utime(file)
        return record

    def write(self, index: int, path: str, record: bytes) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_room(shutil.disk_usage(self.folder).free, len(record), str(self.folder))
        file = self._file(path)
        beside = file.with_name(f"{file.name}.{os.getpid()}")  # two runs may keep the same photo at once
        atomic_write(beside, record, sync=False)
        beside.replace(file)

    def _file(self, path: str) -> Path:
        name = _hash(path, self.size).hex()
        return self.folder / name[:2] / name[2:]


def _drop_unused(folder: Path) -> None:
    """Remove what no run has read for long; once a day, which the folder's own date tells."""
    with suppress(OSError):  # no folder yet, or another's
        if _age(folder) < _DAY:
            return
        os.utime(folder)
        for file in folder.glob("[0-9a-f][0-9a-f]/*"):
            with suppress(OSError):  # another run does the same
                if _age(file) > _KEPT:
                    file.unlink()


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def cache_folder() -> Path:
    """Where this user's programs keep what they can make again: several runs on the same photos share it.

    Raises:
        ConfigError: the system doesn't know.
    """
    usual = {"darwin": "~/Library/Caches", "win32": os.environ.get("LOCALAPPDATA", "~/AppData/Local")}
    given = os.environ.get("XDG_CACHE_HOME") or usual.get(sys.platform, "~/.cache")
    folder = Path(os.path.expanduser(given))  # noqa: PTH111 - which raises where there is no home
    if not folder.is_absolute():
        raise ConfigError("data.cache: no folder for caches is known; set XDG_CACHE_HOME to one, with its whole path")
    return folder / "unit-translation"


def _hash(*facts: object) -> bytes:
    return blake2b("\0".join(map(str, facts)).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _packed(image: Image.Image, identity: bytes) -> bytes:
    pixels = image.tobytes()
    return _HEAD.pack(identity, *image.size, zlib.crc32(pixels)) + pixels


def _length(head: bytes) -> int:
    """Of the whole record."""
    _, width, height, _ = _HEAD.unpack(head)
    return _HEAD.size + 3 * int(width) * int(height)


def _unpacked(record: bytes, identity: bytes, size: int) -> Image.Image | None:
    """The image, or None where the record is not this photo's, or damaged."""
    head, pixels = record[: _HEAD.size], record[_HEAD.size :]
    if len(head) < _HEAD.size or len(record) != _length(head):
        return None
    found, width, height, checksum = _HEAD.unpack(head)
    if found != identity or min(width, height) != size or checksum != zlib.crc32(pixels):
        return None
    return Image.frombytes("RGB", (width, height), pixels)


def _require_room(free: int, wanted: int, where: str) -> None:
    if free < wanted + _LEFT_FREE:
        raise UserError(f"{where} has {free / 1e9:.1f} GB left, the last {_LEFT_FREE / 1e9:.1f} GB are for training")


def _free_memory() -> int:
    """Bytes that can be had without swapping, in a container (cgroup v2) at most what it may have."""
    available = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    free = int(available[1]) * 1024 if available else 0
    group = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):  # no such group, or "max": no limit
        limit = int((group / "memory.max").read_text())
        kinds = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        files = int(kinds["active_file"]) + int(kinds["inactive_file"])  # given back when memory is wanted
        free = min(free, limit - int((group / "memory.current").read_text()) + files)
    return free
