"""One process a run."""

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
    """Hold a folder for this process, and make it; the system lets go of it when the process ends, however it does.

    Raises:
        UserError: another process holds it; the message has its number.
    """
    lock, holder = FileLock(folder / ".lock", timeout=0), folder / ".lock-holder"
    with wrap_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            number = holder.read_text(errors="replace") if holder.is_file() else "unknown"
            raise UserError(
                f"{escape(folder)}: process {escape(number)} is training there; wait for it, stop it, or give "
                "another --out"
            ) from None
    try:
        atomic_write(holder, str(os.getpid()).encode())
        yield
    finally:
        lock.release()


def archive_run(folder: Path) -> Path | None:
    """Rename a folder that no process holds to NAME.1, or the first such name that is free; None where there is none.

    Raises:
        UserError: a process holds it, it is no run's, or it can't be renamed.
    """
    folder = folder.resolve()
    if not folder.is_dir():
        return None
    if not any((folder / name).exists() for name in ("config.yaml", "checkpoints", ".lock")):
        raise UserError(f"{escape(folder)}: is no run's folder, so it is not set aside; give another --out")
    if Path.cwd().is_relative_to(folder):
        raise UserError(f"{escape(folder)}: can't be set aside from within; go elsewhere, or give another --out")
    with locked(folder), wrap_os_errors(folder):
        aside = next(path for n in range(1, 10**6) if not (path := folder.with_name(f"{folder.name}.{n}")).exists())
        return folder.rename(aside)
