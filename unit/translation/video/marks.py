"""The marks of a translated video: a comment for readers, and XMP for programs, where the container has a place."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from unit.images.metadata import Mark

_XMP_UUID = bytes.fromhex("BE7ACFCB97A942E89C71999491E3AFAC")  # ISO 16684-3: a box of ISO media files
_MAX_XMP = 10_000_000
_PART = 2**20
_GIF_XMP = b"\x21\xff\x0bXMP DataXMP"
_GIF_XMP_END = b"\x01" + bytes(range(255, -1, -1)) + b"\x00"  # makes sense of any bytes as blocks


def tags(mark: Mark, existing: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata to add; an existing comment stays."""
    comment = next((value for key, value in existing.items() if key.lower() == "comment"), "")
    if mark.software in comment:
        return {}
    return {"comment": f"{comment}; {mark.software}" if comment else mark.software}


def add_xmp(path: Path, container: str, mark: Mark, existing: bytes | None) -> None:
    """Add an XMP packet, and to GIF a comment, to a complete file; MKV, which has no place for it, stays as it is."""
    if container == "mp4":
        xmp = mark.xmp(existing)
        with path.open("ab") as file:
            file.write(struct.pack(">I4s16s", 24 + len(xmp), b"uuid", _XMP_UUID) + xmp)
    elif container == "gif":
        with path.open("r+b") as file:
            flags = file.read(13)[10]
            table = 3 * 2 ** (flags % 8 + 1) if flags >= 128 else 0
            comment = mark.software.encode()[:255]
            marks = b"\x21\xfe" + bytes([len(comment)]) + comment + b"\x00" + _GIF_XMP + mark.xmp(existing)
            _insert(file, 13 + table, marks + _GIF_XMP_END)


def _insert(file: BinaryIO, position: int, content: bytes) -> None:
    """Move the rest of an open file back, part by part, the last first."""
    end = file.seek(0, 2)
    while end > position:
        start = max(position, end - _PART)
        file.seek(start)
        part = file.read(end - start)
        file.seek(start + len(content))
        file.write(part)
        end = start
    file.seek(position)
    file.write(content)


def read_xmp(path: Path) -> bytes | None:
    """Return the XMP packet of an MP4 or MOV file; None: it has none, or is another kind of file."""
    with path.open("rb") as file:
        end = file.seek(0, 2)
        start = 0
        while start + 8 <= end:
            file.seek(start)
            size, kind = struct.unpack(">I4s", file.read(8))
            header = 8
            if size == 1 and start + 16 <= end:
                size, header = struct.unpack(">Q", file.read(8))[0], 16
            if start == 0 and kind != b"ftyp":
                return None
            if kind == b"uuid" and file.read(16) == _XMP_UUID and size - header - 16 <= _MAX_XMP:
                return file.read(size - header - 16)
            if size < header:  # 0: up to the end of the file
                return None
            start += size
    return None
