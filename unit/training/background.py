"""Work in a background thread, so that training need not wait for it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Background:
    """Runs one task at a time in a thread; an exception is raised by the method that is called next."""

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._task: Future[None] | None = None

    def start(self, task: Callable[[], None]) -> None:
        """Start a task as soon as the one before is done."""
        self.finish()
        self._task = self._thread.submit(task)

    def finish(self) -> None:
        """Wait for the task, if there is one."""
        task, self._task = self._task, None
        if task:
            task.result()

    def check(self) -> None:
        """Raise the task's exception if it has failed; never wait."""
        if self._task and self._task.done():
            self.finish()
