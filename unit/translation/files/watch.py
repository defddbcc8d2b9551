"""Watching a folder for images to translate."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from unit.listing import files_below, require_folder, suffix_of
from unit.translation.files.jobs import Job, Outcome, image_suffixes, plan_jobs, without_outputs

if sys.platform == "win32":
    fcntl = None
else:
    import fcntl

POLL_SECONDS = 1.0
_SETTLED_SECONDS = 2.0
"""A file that did not change for so long is taken for completely written."""

Signature = tuple[int, int, int]
"""File number, size and time of change, which tell one state of a file from another."""


class Watcher:
    """Notices images in a folder, each as soon as it is completely written, and again when it has changed.

    Args:
        folder: searched recursively.
        out: folder of the outputs, which are never noticed, even if it lies in `folder` or is the same.
        now: the time in seconds.
    """

    def __init__(self, folder: Path, out: Path, now: Callable[[], float] = time.monotonic) -> None:
        self.folder, self.out, self._now = folder, out, now
        self._noticed: dict[str, Signature] = {}
        self._changed: dict[str, tuple[Signature, float]] = {}
        """the state of a file that was not noticed yet, and when it was first seen so"""

    def poll(self) -> list[str]:
        """Return the sorted relative paths of images that are new, or have changed, and are complete.

        Raises:
            DataError: the folder can't be listed.
        """
        suffixes = image_suffixes()
        present = {
            name: s for name in files_below(self.folder) if suffix_of(name) in suffixes and (s := self._sign(name))
        }
        self._noticed = {name: signature for name, signature in self._noticed.items() if name in present}
        waiting = {name: s for name, s in present.items() if self._noticed.get(name) != s}
        earlier, self._changed = self._changed, {}
        complete = []
        for name, signature in waiting.items():
            before, since = earlier.get(name, (signature, self._now()))
            since = since if before == signature else self._now()
            settled = self._now() - since >= _SETTLED_SECONDS and signature[1] > 0
            if settled and not _is_being_written(self.folder / name):
                complete.append(name)
                self._noticed[name] = signature
            else:
                self._changed[name] = signature, since
        return sorted(complete)

    def _sign(self, name: str) -> Signature | None:
        with suppress(OSError):
            status = (self.folder / name).stat()
            return status.st_ino, status.st_size, status.st_mtime_ns
        return None


def _is_being_written(path: Path) -> bool:
    """True if a program has the file open for writing; False where the system can't tell."""
    if fcntl is None or not hasattr(fcntl, "F_SETLEASE"):
        return False
    try:
        with path.open("rb") as file:
            # A lease is refused while there is a writer, and would tell us of the next; closing the file returns it.
            fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)  # which is ignored; the default would end the program
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:  # another's file, a file system without leases
        return False
    return False


def watch(
    folder: Path,
    out: Path,
    suffix: str | None,
    samples: int | None,
    translate: Callable[[Sequence[Job]], Iterable[Outcome]],
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Outcome]:
    """Translate the images that are in a folder, and those that appear there, until interrupted.

    Args:
        folder: searched recursively.
        out: folder of the outputs, which keep their relative paths.
        suffix: of the outputs, as for `plan_jobs`.
        samples: outputs per image, as for `plan_jobs`.
        translate: translates jobs, such as `translate_images`.
        sleep: waits between two looks at the folder.

    Raises:
        DataError: the folder can't be listed.
    """
    require_folder(folder)
    watcher = Watcher(folder, out)
    owners: dict[Path, Path] = {}
    while True:
        if names := watcher.poll():
            files = [(folder / name, PurePosixPath(name)) for name in names]
            files = [file for file in _inputs(files, folder, out) if file[0] not in owners]
            jobs = plan_jobs([_renamed(file, out, suffix, samples, owners) for file in files], out, suffix, samples)
            owners.update((output, job.input) for job in jobs for output in job.outputs)
            if jobs:
                yield from translate(jobs)
        sleep(POLL_SECONDS)


def _inputs(
    files: Sequence[tuple[Path, PurePosixPath]], folder: Path, out: Path
) -> Sequence[tuple[Path, PurePosixPath]]:
    return without_outputs(files, str(folder), os.path.realpath(out)) if out.is_dir() else files


def _renamed(
    file: tuple[Path, PurePosixPath], out: Path, suffix: str | None, samples: int | None, owners: dict[Path, Path]
) -> tuple[Path, PurePosixPath]:
    """Let a file whose outputs an earlier one with another suffix has taken keep its suffix in their names."""
    path, target = file
    (job,) = plan_jobs([file], out, suffix, samples)
    if all(owners.get(output, path) == path for output in job.outputs):
        return file
    return path, target.with_name(f"{target.name}{target.suffix}")
