"""Ctrl-C, SIGTERM and a closed terminal as requests to stop after the current step."""

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
    """A request to stop, made by a signal."""

    signal: int = 0
    """the signal's number; 0: no request"""


@contextmanager
def stop_on_signals(ignore_repeats: bool = False) -> Iterator[StopRequest]:
    """Turn the first SIGINT, SIGTERM or SIGHUP into a request to stop; a second signal ends the process at once.

    SIGHUP, sent by a terminal that is closed, stays ignored if it is (nohup). In a thread other than the main one,
    where Python handles no signals, nothing is changed.

    Args:
        ignore_repeats: ignore further signals. torchrun passes on what the terminal has sent to all, and kills the
            process itself when stopping takes too long.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def request_stop(number: int, _: FrameType | None) -> None:
        request.signal = number
        hint = "" if ignore_repeats else "; send it again to stop at once"
        log.warning("%s: finishing this step and saving%s", signal.Signals(number).name, hint)
        for handled in before:
            signal.signal(handled, signal.SIG_IGN if ignore_repeats else signal.SIG_DFL)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, request_stop) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
