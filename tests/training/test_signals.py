import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from unit.training.signals import stop_on_signals

NUMBERS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
DEAF = """
import logging, signal, sys, time
from unit.training.signals import stop_on_signals
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which tests under nohup inherit as ignored
logging.basicConfig(format="%(message)s")
with stop_on_signals() as stop:
    print("listening", flush=True)
    while True:  # a step that takes for ever
        time.sleep(0.01)
        if stop.signal:
            print("noted", flush=True)
"""


@pytest.fixture
def no_nohup() -> Iterator[None]:
    """SIGHUP as it is in a terminal, also where the tests run under nohup."""
    if not hasattr(signal, "SIGHUP"):
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("no_nohup")
@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_is_a_request_and_the_handlers_are_restored(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in NUMBERS]
    with stop_on_signals() as stop:
        assert stop.signal == 0
        os.kill(os.getpid(), number)
        assert stop.signal == number
    assert [signal.getsignal(each) for each in NUMBERS] == before


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as on POSIX")
@pytest.mark.parametrize("second", NUMBERS)
@pytest.mark.parametrize("first", NUMBERS)
def test_a_second_signal_ends_the_process_within_a_step(first: signal.Signals, second: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"listening\n"
        process.send_signal(first)
        assert process.stdout.readline() == b"noted\n"
        process.send_signal(second)
        assert process.wait(timeout=10) == -second
        assert process.stderr.read().count(b"send it again to stop at once") == 1


def test_another_thread_changes_nothing() -> None:
    before, seen = [signal.getsignal(each) for each in NUMBERS], []

    def listen() -> None:
        with stop_on_signals() as stop:
            seen.append((stop.signal, [signal.getsignal(each) for each in NUMBERS]))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert seen == [(0, before)]


@pytest.mark.skipif(os.name != "posix", reason="SIGHUP is POSIX's")
def test_a_closed_terminal_stays_ignored_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop.signal == 0
    finally:
        signal.signal(signal.SIGHUP, before)
