"""Work that training does not wait for."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Background:
    """One piece of work at a time, in a thread; what it raises is raised by whichever method is called next."""

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._work: Future[None] | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Begin, once the work before is done."""
        self.finish()
        self._work = self._thread.submit(work)

    def finish(self) -> None:
        """Wait until nothing is left to do."""
        work, self._work = self._work, None
        if work:
            work.result()

    def check(self) -> None:
        """Do not wait, but raise what failed."""
        if self._work and self._work.done():
            self.finish()
