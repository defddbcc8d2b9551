"""A lock on a run's directory, so that one process at a time trains in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from unit.errors import UserError, escape
from unit.files import atomic_write, wrap_os_errors


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Create `folder` and hold its lock, which the system releases when the process ends, however it ends.

    Raises:
        UserError: another process holds it; the message has its pid.
    """
    lock, holder = FileLock(folder / ".lock", timeout=0), folder / ".lock-holder"
    with wrap_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            pid = holder.read_text(errors="replace") if holder.is_file() else "unknown"
            raise UserError(
                f"{escape(folder)}: process {escape(pid)} is training there; wait for it, stop it, or give "
                "another --out"
            ) from None
    try:
        atomic_write(holder, str(os.getpid()).encode())
        yield
    finally:
        lock.release()


def archive_run(folder: Path) -> Path | None:
    """Rename a run's directory to NAME.1, or the first such name that is free; return that, or None if there is none.

    Raises:
        UserError: a process is training there, it is not a run directory, or it can't be renamed.
    """
    folder = folder.resolve()
    if not folder.is_dir():
        return None
    if not any((folder / name).exists() for name in ("config.yaml", "checkpoints", ".lock")):
        raise UserError(f"{escape(folder)}: not a run directory, so --restart does not rename it; give another --out")
    if Path.cwd().is_relative_to(folder):
        raise UserError(f"{escape(folder)}: the current directory is in it, so --restart can't rename it; cd elsewhere")
    with locked(folder), wrap_os_errors(folder):
        archive = next(path for n in range(1, 10**6) if not (path := folder.with_name(f"{folder.name}.{n}")).exists())
        return folder.rename(archive)
