"""Atomic file writes, and reads of ordinary files only."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from unit.errors import UserError, escape


def read_file(path: Path, max_bytes: int) -> bytes:
    """Read a whole file; raises `OSError` as `require_regular_file` does."""
    require_regular_file(path, max_bytes)
    with path.open("rb") as file:
        return file.read(max_bytes)  # the files of /proc say that they are empty, and may never end


def require_regular_file(path: Path, max_bytes: int) -> int:
    """Return the size in bytes of a file that is safe to open and read: a pipe or device would block or never end.

    Raises:
        OSError: missing, not a regular file, or larger than `max_bytes`, as a file of nothing but a hole may be.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    if status.st_size > max_bytes:
        raise OSError(errno.EFBIG, f"larger than {max_bytes:,} bytes")
    return status.st_size


def atomic_write(path: Path, content: bytes | memoryview, *, sync: bool = True) -> None:
    """Write a temporary file beside `path`, then rename it; missing folders are created.

    Args:
        sync: return when the content is on the disk, so that even a power failure leaves the old file or the new one.

    Raises:
        UserError: it can't be written; the old file, if any, is untouched.
    """
    with wrap_os_errors(path, len(content)):
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_beside(path, content, sync)
        if sync and os.name == "posix":  # Windows can't open a folder, and needn't
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def _write_beside(path: Path, content: bytes | memoryview, sync: bool) -> None:
    # The name is hidden, so that no listing finds it; short, since the file's own name may have the maximum length; and
    # always the same, so that killed programs leave at most one behind.
    temporary = path.parent / f".{hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest()}.partial"
    try:
        temporary.unlink(missing_ok=True)  # not written through: it may be a link to another file
        with temporary.open("xb") as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def wrap_os_errors(path: Path, size: int | None = None) -> Iterator[None]:
    """Turn an `OSError` raised while `size` bytes are written to `path` into one line.

    Raises:
        UserError: names the path, the reason, and the bytes needed and free.
    """
    try:
        yield
    except OSError as error:
        needed = "" if size is None else f"; {size} bytes are needed"
        free = ""
        with suppress(OSError):
            existing = next(folder for folder in (path, *path.parents) if folder.is_dir())
            free = f"; {shutil.disk_usage(existing).free} bytes are free there"
        raise UserError(f"{escape(path)}: can't be written ({error.strerror or error}){needed}{free}") from error
