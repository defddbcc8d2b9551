"""Ctrl-C, SIGTERM and a closed terminal as a wish that the run grants after the current step."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

log = logging.getLogger(__name__)


@dataclass
class StopRequest:
    """Whether somebody wants the run to stop."""

    signal: int = 0
    """the number of the signal that came, or 0"""


@contextmanager
def stop_on_signals(only_once: bool = False) -> Iterator[StopRequest]:
    """Within, the first SIGINT, SIGTERM or SIGHUP is noted; a second one ends the process at once.

    With `only_once` further ones are ignored: torchrun passes on what the terminal has already sent, and kills the
    process itself when that lasts too long.
    SIGHUP, which a terminal sends that is closed, stays ignored where it is (nohup).
    In a thread other than the main one, where Python takes no signals, nothing is changed.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, _: FrameType | None) -> None:
        request.signal = number
        again = "" if only_once else "; once more to stop at once"
        log.warning("%s: finishing this step and saving%s", signal.Signals(number).name, again)
        for each in before:
            signal.signal(each, signal.SIG_IGN if only_once else signal.SIG_DFL)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
