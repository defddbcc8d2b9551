"""The index of a shard (a tar file as WebDataset's): the name, offset and size of each image; cached between runs.

Offsets give random access, by which a run resumes, ranks and workers share an epoch, and images are held out as from a
folder. Python's tarfile finds them. WebDataset's own random access, wids, left the package with version 1.0, and ZIP
files, which need no index, would not be WebDataset's.
"""

from __future__ import annotations

import io
import os
import sys
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from unit.errors import DataError, UserError, escape
from unit.files import atomic_write, read_file
from unit.images import SUFFIXES, UNSUPPORTED_SUFFIXES
from unit.listing import suffix_of, warn_of_unsupported

_FORMAT_VERSION = 3
"""Version of cached indexes; increase it whenever an index would come out differently."""
_THREADS = 8
_MAX_NAME = 4096
"""Bytes of a name, as in a file system's path."""
_MAX_PADDING = 2**24
"""Bytes of zeros at the end of a tar file; GNU's usually fills it up to a multiple of 10 KB."""
_MAX_CACHED = 2**32
"""Bytes of a cached index; a million images take a hundredth."""
_DIGEST_SIZE = 16
_EXTENSIONS = {
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
}
"""Types of headers before a member's own, which hold what it has no room for."""
_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}
"""By the first bytes of a compressed file."""

Member = tuple[str, int, int]
"""Name, offset and size in bytes."""
Members = npt.NDArray[Any]
"""Structured: the offset, size and name of each image; compact, since every DataLoader worker holds it."""
Stamp = tuple[int, int]
"""A shard's size and modification time (ns) when it was read."""


def read_indexes(files: Sequence[str], cache: Path | None) -> list[tuple[Stamp, Members]]:
    """Read the index of each shard, from the folder `cache` if the shard has not changed.

    Raises:
        DataError: a shard can't be read, is damaged, compressed or not a tar file, or holds no images.
    """
    pool = ThreadPoolExecutor(_THREADS)  # they wait for the disk, or the network, together
    try:
        indexes = pool.map(partial(_read_index, cache), files)
        hidden = not sys.stderr.isatty()
        return list(tqdm(indexes, total=len(files), desc="shards", unit="file", leave=False, disable=hidden))
    finally:
        pool.shutdown(cancel_futures=True)


def _read_index(cache: Path | None, file: str) -> tuple[Stamp, Members]:
    try:
        status = os.stat(file)  # noqa: PTH116
        stamp = (status.st_size, status.st_mtime_ns)
        identity = (os.path.abspath(file), *stamp, _FORMAT_VERSION, *sorted(SUFFIXES))  # noqa: PTH100 - links keep their names
        key = blake2b(os.fsencode("\0".join(map(str, identity))), digest_size=_DIGEST_SIZE).digest()
        path = cache / key.hex()[:2] / key.hex()[2:] if cache else None
        members = _load(path, key) if path else None
        if members is None:
            members, unsupported = _find_images(file)
            warn_of_unsupported(file, unsupported)
            if path and not unsupported:  # else the next run would not warn
                _save(path, key, members)
        return stamp, members
    except OSError as error:
        raise DataError(f"{escape(file)}: can't be read ({error.strerror or error}); check the disk") from error


def _save(path: Path, key: bytes, members: Members) -> None:
    buffer = io.BytesIO()
    np.save(buffer, members)
    content = buffer.getvalue()
    with suppress(OSError, UserError):  # without it the next start just takes longer
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        atomic_write(path, _digest(key, content) + content, sync=False)


def _load(path: Path, key: bytes) -> Members | None:
    """Return a cached array, or None if it is missing, damaged or another shard's."""
    try:
        record = read_file(path, _MAX_CACHED)
    except OSError:
        return None
    digest, content = record[:_DIGEST_SIZE], record[_DIGEST_SIZE:]
    return np.load(io.BytesIO(content)) if digest == _digest(key, content) else None


def _digest(key: bytes, content: bytes) -> bytes:
    return blake2b(content, key=key, digest_size=_DIGEST_SIZE).digest()


def _find_images(file: str) -> tuple[Members, list[str]]:
    """Find the image of each sample: the members in a row whose names are equal up to the base name's first dot.

    Returns:
        The images, and the names of unsupported images and videos.
    """
    members = list(_read_members(file))
    images: dict[str, Member] = {}  # of equal names the last counts, as in every tar file
    for _, group in groupby(filter(_is_image, members), key=_sample_key):
        sample = list(group)
        # Of several images in a sample, x.jpg is meant and not x.depth.png.
        plain = [member for member in sample if member[0].rpartition("/")[2].count(".") == 1] if sample[1:] else sample
        if len(plain) != 1:
            names = " and ".join(escape(name) for name, *_ in (plain or sample)[:2])
            raise DataError(
                f"{escape(file)}: {names} are one sample to WebDataset, which reads names up to their first dot; "
                "leave one image in each sample, or write the shards with python -m unit shards"
            )
        images[plain[0][0]] = plain[0]
    if not images:
        reason = f"holds no images, and {len(members)} other members; leave it out, or write it again"
        raise DataError(f"{escape(file)}: {reason}")
    rows = [(offset, size, os.fsencode(name)) for name, offset, size in images.values()]
    longest = max(len(name) for _, _, name in rows)
    if longest > _MAX_NAME:  # each row of the array has room for the longest name
        raise DataError(f"{escape(file)}: has a name of {longest:,} bytes; write the shard with shorter names")
    unsupported = [name for name, *_ in members if suffix_of(name) in UNSUPPORTED_SUFFIXES]
    return np.array(rows, [("offset", "<i8"), ("size", "<i8"), ("name", f"S{longest}")]), unsupported


def _is_image(member: Member) -> bool:
    """True for an image that the listing of a folder would find; a Mac's tar adds ``._x.jpg`` to each ``x.jpg``."""
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in member[0].split("/"))
    return not hidden and suffix_of(member[0]) in SUFFIXES


def _sample_key(member: Member) -> str:
    folder, slash, base = member[0].rpartition("/")
    return folder + slash + base.partition(".")[0]


def _read_members(file: str) -> Iterator[Member]:
    """Yield the regular files in a tar file, and refuse a damaged one."""
    with Path(file).open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        try:
            archive = tarfile.open(fileobj=stream, mode="r:")  # noqa: SIM115 - closing it does nothing
            start = 0
            while member := archive.next():
                _require_whole_extensions(stream, start, member.offset_data)
                start = archive.offset
                archive.members.clear()  # type: ignore[attr-defined]  # which would hold a kilobyte for each
                if member.size < 0 or member.offset_data + member.size > size:
                    raise tarfile.ReadError("unexpected end of data")
                if member.isreg() and not member.issparse():
                    yield member.name.removeprefix("./"), member.offset_data, member.size
        except OSError:
            raise
        except Exception as error:  # damaged headers make tarfile raise anything
            stream.seek(0)
            raise DataError(f"{escape(file)}: {_damage(stream.read(tarfile.BLOCKSIZE), error)}") from error
        # tarfile takes a damaged or zeroed header for the end of the archive, behind which only zeros may follow.
        stream.seek(archive.offset)
        padding = stream.read(_MAX_PADDING)
        if padding.strip(b"\0") or stream.read(1) or len(padding) < tarfile.BLOCKSIZE:
            reason = f"is damaged or cut short at byte {archive.offset:,}; copy or write it again"
            raise DataError(f"{escape(file)}: {reason}")


def _require_whole_extensions(stream: BinaryIO, start: int, end: int) -> None:
    """Refuse a zeroed block in the long names and records of a member, from which tarfile reads another name.

    Args:
        start: where the member's headers start.
        end: where its content does.
    """
    while start < end - tarfile.BLOCKSIZE:
        stream.seek(start)
        header = tarfile.TarInfo.frombuf(stream.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
        if header.type not in _EXTENSIONS:
            return
        content = stream.read(header.size).removesuffix(b"\0")  # the end of a GNU name, if in a block of its own
        blocks = (content[k : k + tarfile.BLOCKSIZE] for k in range(0, len(content), tarfile.BLOCKSIZE))
        if not all(block.strip(b"\0") for block in blocks):
            raise tarfile.ReadError(f"zeros at byte {start:,}")
        start = stream.tell() + -header.size % tarfile.BLOCKSIZE


def _damage(start: bytes, error: Exception) -> str:
    """Say why tarfile can't read a shard that begins with `start`, and what to do."""
    compression = next((name for magic, name in _COMPRESSIONS.items() if start.startswith(magic)), None)
    if not start:
        return "is empty; copy or write it again"
    if compression:
        return f"is compressed ({compression}); unpack it, since shards are read at any offset"
    try:
        tarfile.TarInfo.frombuf(start, "utf-8", "surrogateescape")
    except Exception:
        return "is not a tar file; give shards as python -m unit shards writes them"
    return f"is damaged or cut short ({escape(str(error))}); copy or write it again"
