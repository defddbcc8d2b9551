"""Files that exist whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from unit.errors import UserError, escape


def atomic_write(path: Path, content: bytes | memoryview, *, sync: bool = True) -> None:
    """Put `content` at `path` in one stroke: written beside it, then renamed; makes the folders it needs.

    With `sync` it is on the disk when this returns, so that also a power failure leaves the old file or the new one.

    Raises:
        UserError: it can't be written; what was there before is untouched.
    """
    with wrap_os_errors(path, len(content)):
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_beside(path, content, sync)
        if sync and os.name == "posix":  # elsewhere a folder can't be opened, nor need it be
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def _write_beside(path: Path, content: bytes | memoryview, sync: bool) -> None:
    # Hidden, so that no listing takes it; as short as may be, since the file's own name may be as long as a name can
    # be; the same each time, so that a killed program leaves one behind at most.
    beside = path.parent / f".{hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest()}.partial"
    try:
        beside.unlink(missing_ok=True)  # it may be a link to somebody's file
        with beside.open("xb") as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def wrap_os_errors(path: Path, size: int | None = None) -> Iterator[None]:
    """Turn what the system refuses while `size` bytes are written to `path` into one line.

    Raises:
        UserError: naming the path, the reason, and the bytes that are needed and free.
    """
    try:
        yield
    except OSError as error:
        needed = "" if size is None else f"; {size} bytes are needed"
        free = ""
        with suppress(OSError):
            there = next(folder for folder in (path, *path.parents) if folder.is_dir())
            free = f"; {shutil.disk_usage(there).free} bytes are free there"
        raise UserError(f"{escape(path)}: can't be written ({error.strerror or error}){needed}{free}") from error
