"""Which images lie where in a shard (a tar file of WebDataset's kind), from its headers; kept for the next time."""

from __future__ import annotations

import os
import struct
import sys
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from unit.errors import DataError, UserError, escape
from unit.files import atomic_write
from unit.images import SUFFIXES

_FORM = 1
"""To be raised whenever an index would come out otherwise than before."""
_RECORD = struct.Struct("<16sIQI")
"""Of a kept index: the shard's identity, images, bytes of their names, checksum of what follows."""
_THREADS = 8
_BLOCK = 512
_LONGEST = 2**20
"""Bytes of a header's extension: names are shorter."""
_ENDINGS = {suffix[1:].encode() for suffix in SUFFIXES}
_PACKED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}
"""By how a compressed file begins."""

Numbers = npt.NDArray[np.uint32]


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """The images of one shard, in the order in which they lie there: for each, 12 bytes and those of its name."""

    stamp: tuple[int, int]
    """the shard's bytes and its date in ns, when it was read"""
    blocks: Numbers
    """where each image begins, in blocks of 512 bytes"""
    sizes: Numbers
    """in bytes"""
    ends: Numbers
    """where each name ends in `names`"""
    names: bytes

    def __len__(self) -> int:
        return len(self.blocks)

    def name(self, number: int) -> str:
        """The name of image `number` in the shard."""
        start = int(self.ends[number - 1]) if number else 0
        return self.names[start : int(self.ends[number])].decode("utf-8", "surrogateescape")

    def place(self, number: int) -> tuple[int, int]:
        """Offset and size in bytes of image `number`."""
        return int(self.blocks[number]) * _BLOCK, int(self.sizes[number])

    def only(self, chosen: npt.NDArray[np.bool_]) -> ShardIndex:
        """Of the images those that are chosen."""
        lengths = np.diff(self.ends, prepend=np.uint32(0))
        names = np.frombuffer(self.names, np.uint8)[np.repeat(chosen, lengths)].tobytes()
        ends = lengths[chosen].cumsum(dtype=np.uint32)
        return ShardIndex(self.stamp, self.blocks[chosen], self.sizes[chosen], ends, names)


def read_indexes(files: Sequence[str], keep: Path | None) -> list[ShardIndex]:
    """The index of each shard; below `keep` they are kept, for as long as a shard stays as it is.

    Raises:
        DataError: a shard can't be read, is damaged, compressed or no tar file, or holds no images.
    """
    pool = ThreadPoolExecutor(_THREADS)  # they wait for the disk, or the network, together
    try:
        indexes = pool.map(partial(_read_index, keep), files)
        hidden = not sys.stderr.isatty()
        return list(tqdm(indexes, total=len(files), desc="shards", unit="file", leave=False, disable=hidden))
    finally:
        pool.shutdown(cancel_futures=True)


def _read_index(keep: Path | None, file: str) -> ShardIndex:
    try:
        status = os.stat(file)  # noqa: PTH116
        stamp = (status.st_size, status.st_mtime_ns)
        identity = _hash(os.path.abspath(file), *stamp, _FORM, *sorted(SUFFIXES))  # noqa: PTH100 - links keep their names
        record = keep / identity.hex()[:2] / identity.hex()[2:] if keep else None
        index = _kept(record, identity, stamp) if record else None
        if index is None:
            index = _index(stamp, _images(file, stamp[0]))
            if record:
                _keep(record, identity, index)
    except OSError as error:
        raise DataError(f"{escape(file)}: can't be read ({error.strerror or error}); look at the disk") from error
    except _ShardError as damage:
        raise DataError(f"{escape(file)}: {damage}") from damage
    return index


class _ShardError(Exception):
    """What is wrong with a shard, and what to do."""


# Kept


def _keep(record: Path, identity: bytes, index: ShardIndex) -> None:
    content = b"".join(part.tobytes() for part in (index.blocks, index.sizes, index.ends)) + index.names
    head = _RECORD.pack(identity, len(index), len(index.names), zlib.crc32(content))
    with suppress(OSError, UserError):  # without it the next start takes longer, and no more
        record.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside = record.with_name(f"{record.name}.{os.getpid()}")  # two runs may read the same shard at once
        atomic_write(beside, head + content, sync=False)
        beside.replace(record)


def _kept(record: Path, identity: bytes, stamp: tuple[int, int]) -> ShardIndex | None:
    """The index, or None where there is none, or a damaged one."""
    try:
        content = record.read_bytes()
        found, count, length, checksum = _RECORD.unpack_from(content)
    except (OSError, struct.error):
        return None
    start = _RECORD.size + 12 * count
    if found != identity or len(content) != start + length or zlib.crc32(content[_RECORD.size :]) != checksum:
        return None
    numbers = np.frombuffer(content[_RECORD.size : start], np.uint32).reshape(3, count)
    return ShardIndex(stamp, numbers[0], numbers[1], numbers[2], content[start:])


def _hash(*facts: object) -> bytes:
    return blake2b("\0".join(map(str, facts)).encode("utf-8", "surrogatepass"), digest_size=16).digest()


# Read

Member = tuple[bytes, int, int]
"""Name, offset and size in bytes."""


def _index(stamp: tuple[int, int], images: Sequence[Member]) -> ShardIndex:
    names, offsets, sizes = zip(*images, strict=True)
    if max(sizes) >= 2**32 or max(offsets) >= 2**32 * _BLOCK:
        raise _ShardError("holds an image of over 4 GB, or more than 2 TB; make smaller ones")
    ends = np.cumsum([len(name) for name in names], dtype=np.uint32)
    blocks = np.array(offsets, np.int64) // _BLOCK
    return ShardIndex(stamp, blocks.astype(np.uint32), np.array(sizes, np.uint32), ends, b"".join(names))


def _images(file: str, size: int) -> list[Member]:
    """The image of each sample (a run of members whose names are equal up to the last part's first dot), if any."""
    images: dict[bytes, Member] = {}  # by name, of which the last counts, as in every tar file
    sample: list[Member] = []
    key, others = b"", 0
    for member in _members(file, size):
        folder, slash, base = member[0].rpartition(b"/")
        if base.rpartition(b".")[2].lower() not in _ENDINGS or _hidden(member[0]):
            others += 1
            continue
        name = folder + slash + base.partition(b".")[0]
        if name != key:
            images |= _image_of(sample)
            key, sample = name, []
        sample.append(member)
    images |= _image_of(sample)
    if not images:
        raise _ShardError(f"holds no images, and {others} other members; leave it out, or write it anew")
    return list(images.values())


def _hidden(name: bytes) -> bool:
    """As the listing of a folder has it; a Mac's tar adds ``._x.jpg`` to each ``x.jpg``."""
    return (name[:1] == b"." or b"/." in name or b"__MACOSX" in name) and any(
        part[:1] == b"." or part == b"__MACOSX" for part in name.split(b"/")
    )


def _image_of(sample: list[Member]) -> dict[bytes, Member]:
    """Its image by name: of several, ``x.jpg`` and not ``x.depth.png``."""
    plain = (
        sample if len(sample) < 2 else [member for member in sample if member[0].rpartition(b"/")[2].count(b".") == 1]
    )
    if len(plain) == min(len(sample), 1):
        return {member[0]: member for member in plain}
    names = [escape(os.fsdecode(name)) for name, *_ in (plain or sample)[:2]]
    raise _ShardError(
        f"{' and '.join(names)} are one sample to WebDataset, which reads names up to their first dot; "
        "leave one image in each sample, or write the shards with python -m unit shards"
    )


def _members(file: str, size: int) -> Iterator[Member]:
    """The ordinary files in a tar file of `size` bytes: the standard's (ustar, pax) and GNU's headers.

    Python's tarfile takes four times as long, and takes damage in the middle for the end.
    """
    descriptor = os.open(file, os.O_RDONLY)
    try:
        if hasattr(os, "posix_fadvise"):  # what lies between the headers need not be read
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        place = 0
        longer: dict[bytes, bytes] = {}  # what the header before said of this member
        while any(head := os.pread(descriptor, _BLOCK, place)):
            kind, length = head[156:157], _length(head, place)
            start = place + _BLOCK
            if kind in b"xL":
                extension = os.pread(descriptor, min(length, _LONGEST), start)
                longer |= {b"path": extension.rstrip(b"\0")} if kind == b"L" else _records(extension, place)
            elif kind not in b"gK":
                length = _number(longer.get(b"size", b"%d" % length), 10)
                if kind in b"0\x007":
                    name = (longer.get(b"path") or _name(head)).removeprefix(b"./")
                    yield name, start, length
                elif kind in b"123456":  # links, folders and devices have no content
                    length = 0
                longer = {}
            place = start + length + -length % _BLOCK
            if length < 0 or place > size:
                raise _ShardError("is cut short; copy or write it anew")
        if len(head) < _BLOCK:
            raise _ShardError("is cut short; copy or write it anew" if size else "is empty; copy or write it anew")
    finally:
        os.close(descriptor)


def _length(head: bytes, place: int) -> int:
    """The size of a member; refuses what is no header."""
    # The checksum, the sum of the header's bytes with eight spaces in its own place, is the low half of Adler's less 1.
    spaced = head[:148] + b"        " + head[156:]
    if len(head) == _BLOCK and (_number(head[148:156]) + 1) % 65521 == zlib.adler32(spaced) & 0xFFFF:
        length = _number(head[124:136])
        if length >= 0:
            return length
    if place:
        raise _ShardError(f"is damaged or cut short at byte {place:,}; copy or write it anew")
    packed = next((name for start, name in _PACKED.items() if head.startswith(start)), None)
    if packed:
        raise _ShardError(f"is compressed ({packed}); unpack it, since shards are read at any place")
    raise _ShardError("is no tar file; give shards as python -m unit shards writes them")


def _number(field: bytes, base: int = 8) -> int:
    """A number in a header, -1 where it is none; GNU writes large ones as bytes behind 0x80."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.strip(b" \0") or b"0", base)
    except ValueError:
        return -1


def _name(head: bytes) -> bytes:
    name = head[:100].partition(b"\0")[0]
    folder = head[345:500].partition(b"\0")[0] if head[257:263] == b"ustar\0" else b""
    return folder + b"/" + name if folder else name


def _records(extension: bytes, place: int) -> dict[bytes, bytes]:
    """Of pax, each ``LENGTH KEY=VALUE`` and a line break, where LENGTH counts all of that."""
    found = {}
    while extension:
        digits, _, _ = extension.partition(b" ")
        length = _number(digits, 10)
        key, _, value = extension[len(digits) + 1 : length - 1].partition(b"=")
        if length <= len(digits) + 1 or length > len(extension):
            raise _ShardError(f"is damaged at byte {place:,}; copy or write it anew")
        found[key] = value
        extension = extension[length:]
    return found
