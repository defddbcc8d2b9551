"""Atomic file writes, and reads of ordinary files only."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import BinaryIO

from unit.errors import UserError, escape, format_bytes

if sys.platform == "win32":
    fcntl = None
else:
    import fcntl

log = logging.getLogger(__name__)
_PARTIAL = ".partial"
_CANT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF)
"""How file systems refuse to sync, above all folders; a failed disk gives EIO."""
_unsynced: set[int] = set()
"""The file systems that were warned of."""


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
                fsync(folder, path.parent)
            finally:
                os.close(folder)


def append(path: Path, content: bytes) -> None:
    """Append to a file, which is created if it is missing; a pipe without a reader is an error, not waited for.

    Raises:
        UserError: it can't be written.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with wrap_os_errors(path, len(content)), os.fdopen(os.open(path, flags, 0o666), "ab") as file:
        file.write(content)


def fsync(descriptor: int, path: Path) -> None:
    """Sync an open file or folder to the disk; where the file system can't, say so once and go on."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANT_SYNC:
            raise
        if (device := os.fstat(descriptor).st_dev) not in _unsynced:
            _unsynced.add(device)
            log.warning(
                "%s: this file system can't sync all it writes; a power failure may cost the newest files", escape(path)
            )


def is_partial(path: Path) -> bool:
    """True for a file that `atomic_write` is writing, or was when its program was killed."""
    return path.name.startswith(".") and path.suffix == _PARTIAL


def _write_beside(path: Path, content: bytes | memoryview, sync: bool) -> None:
    with replacing(path) as file:
        file.write(content)
        file.flush()
        if sync:
            fsync(file.fileno(), path.parent)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a temporary file beside `path`, to be written there or by its name, and in the end rename it to `path`.

    If an exception ends the block, it is deleted, and the old file at `path` is untouched.
    """
    with _create_beside(path) as file:  # whose lock is held until it is renamed or deleted
        temporary = Path(file.name)
        try:
            try:
                yield file
            finally:
                if not fcntl:  # Windows renames and deletes no open file
                    file.close()
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _create_beside(path: Path) -> BinaryIO:
    """Create and lock a file that no other writer of `path` uses; what killed writers left is removed."""
    # The name is hidden, so that no listing finds it, and short, since the file's own may have the maximum length. Each
    # writer takes the first free number, so that killed ones leave no more files than there were at once.
    digest = hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest()
    for temporary in (path.with_name(f".{digest}-{number}{_PARTIAL}") for number in count()):
        with suppress(OSError), temporary.open("r+b") as left:
            if fcntl and _lock(left, fcntl.LOCK_EX | fcntl.LOCK_NB):
                temporary.unlink()
        with suppress(FileExistsError):
            file = temporary.open("xb")  # never through a link
            if not fcntl or _lock(file, fcntl.LOCK_EX):
                return file
            file.close()  # another writer took it for one that a killed writer had left
    raise AssertionError


def _lock(file: BinaryIO, operation: int) -> bool:
    """Lock a file until it is closed; return True if it is still the one at its path.

    Raises:
        OSError: another process or thread has locked it.
    """
    fcntl.flock(file, operation)
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), os.lstat(file.name))
    return False


@contextmanager
def wrap_os_errors(path: Path, size: int | None = None) -> Iterator[None]:
    """Turn an `OSError` raised while `size` bytes are written to `path` into one line.

    Raises:
        UserError: names the path, the reason and, if that is a lack of space, the sizes needed and free.
    """
    try:
        yield
    except OSError as error:
        sizes = ""
        if size is not None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            sizes = f"; {format_bytes(size)} are needed"
        if error.errno == errno.ENOSPC:
            with suppress(OSError):
                existing = next(folder for folder in (path, *path.parents) if folder.is_dir())
                sizes += f"; {format_bytes(shutil.disk_usage(existing).free)} are free there"
        raise UserError(f"{escape(path)}: can't be written ({error.strerror or error}){sizes}") from error


def cache_folder(name: str) -> Path | None:
    """The folder of this user's caches of one kind, or None if the system names none."""
    defaults = {"darwin": "~/Library/Caches", "win32": os.environ.get("LOCALAPPDATA", "~/AppData/Local")}
    folder = os.environ.get("XDG_CACHE_HOME") or defaults.get(sys.platform, "~/.cache")
    path = Path(os.path.expanduser(folder))  # noqa: PTH111 - which raises where there is no home
    return path / "unit-translation" / name if path.is_absolute() else None
