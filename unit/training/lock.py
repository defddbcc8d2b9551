"""One process a run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from unit.errors import UserError, printable
from unit.files import write_whole, writing


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process, and make it; the system lets go of it when the process ends, however it does.

    Raises:
        UserError: another process holds it; the message has its number.
    """
    lock, holder = FileLock(folder / ".lock", timeout=0), folder / ".lock-holder"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            number = holder.read_text(errors="replace") if holder.is_file() else "unknown"
            raise UserError(
                f"{printable(folder)}: process {printable(number)} is training there; wait for it, stop it, or give "
                "another --out"
            ) from None
    try:
        write_whole(holder, str(os.getpid()).encode())
        yield
    finally:
        lock.release()


def set_aside(folder: Path) -> Path | None:
    """Rename a folder that no process holds to NAME.1, or the first such name that is free; None where there is none.

    Raises:
        UserError: a process holds it, it is no run's, or it can't be renamed.
    """
    folder = folder.resolve()
    if not folder.is_dir():
        return None
    if not any((folder / name).exists() for name in ("config.yaml", "checkpoints", ".lock")):
        raise UserError(f"{printable(folder)}: is no run's folder, so it is not set aside; give another --out")
    if Path.cwd().is_relative_to(folder):
        raise UserError(f"{printable(folder)}: can't be set aside from within; go elsewhere, or give another --out")
    with locked(folder), writing(folder):
        aside = next(path for n in range(1, 10**6) if not (path := folder.with_name(f"{folder.name}.{n}")).exists())
        return folder.rename(aside)
