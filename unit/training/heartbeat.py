"""Heartbeats between the ranks of a run, so that none waits for one that is gone."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from contextlib import suppress
from datetime import timedelta

from torch.distributed import Store  # type: ignore[attr-defined]

from unit.errors import UserError

log = logging.getLogger(__name__)

_INTERVAL = 1.0  # seconds between two heartbeats
_TIMEOUT = 25.0  # seconds without a heartbeat after which a rank counts as lost
_TIMEOUT_AFTER_ERROR = 5.0  # the same once a collective has failed, and the question is which rank is lost
_GRACE = 20.0  # seconds that this process has to save and exit by itself once a rank is lost
_STORE_LOST = "rank 0's machine, or torchrun there, can no longer be reached"


class PeerError(UserError):
    """Another rank failed or was lost; the message names it."""


class Heartbeat:
    """Ends this process when another rank fails, is killed, hangs or is cut off, and says which and why.

    Each rank counts up in torchrun's store every second; rank 0 watches all others, and they watch rank 0. Whoever
    fails, or finds another one silent, writes the reason into the store, where all read it. Time is counted in
    heartbeats of this process, so that a job that was suspended as a whole continues afterwards.

    torchrun and the timeouts of process groups are not enough. torchrun sees a process that exits, but neither one that
    hangs nor a machine that is gone; and when a stopped rank ran into a collective's timeout, its 20 lines called the
    rank that noticed the root cause. That timeout would have to exceed rank 0's longest evaluation, during which the
    others wait. `monitored_barrier` names a silent rank, but to rank 0 alone, and nobody watches rank 0 itself.
    """

    def __init__(self, store: Store, rank: int, names: list[str]) -> None:
        self._store = store.clone()  # a store serves one thread at a time
        self._store.set_timeout(timedelta(seconds=_TIMEOUT))
        self._rank, self._names = rank, names
        self._peers = range(1, len(names)) if rank == 0 else range(1)
        self._timeout = _TIMEOUT
        self._beats, self._last, self._missed = 0, dict.fromkeys(self._peers, 0), Counter(self._peers)
        self._lost = ""
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._beat, self._watch)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(_TIMEOUT_AFTER_ERROR)  # one may be waiting for a machine that is gone

    def fail(self, reason: str) -> str:
        """Tell the other ranks that this one fails; returns the reason with the rank's name."""
        reason = f"{self._names[self._rank]}: {reason}"
        with suppress(RuntimeError):  # the store is gone with rank 0's machine
            self._publish(reason)
        return reason

    def explain(self, error: RuntimeError) -> PeerError:
        """Wait until it is known which rank was lost when a collective failed with `error`."""
        self._timeout = _TIMEOUT_AFTER_ERROR
        deadline = time.monotonic() + 2 * _TIMEOUT_AFTER_ERROR
        while not self._lost and time.monotonic() < deadline:
            time.sleep(_INTERVAL / 10)
        return PeerError(
            self._lost or f"the ranks lost their connection ({str(error).splitlines()[0]}); start the run again"
        )

    def _publish(self, reason: str) -> str:
        """Store the reason why the run ends, and return the first that any rank has stored ("": none)."""
        first: bytes = self._store.compare_set("lost", "", reason)
        return first.decode()

    def _beat(self) -> None:
        while not self._lost and not self._stopped.wait(_INTERVAL):
            try:
                self._beats = self._store.add(f"beat/{self._rank}", 1)
                self._lost = self._publish(self._silent_peer())
            except RuntimeError:
                self._lost = _STORE_LOST

    def _silent_peer(self) -> str:
        for peer in self._peers:
            beats = self._store.add(f"beat/{peer}", 0)
            self._missed[peer] = self._missed[peer] + 1 if beats == self._last[peer] else 0
            self._last[peer] = beats
            seconds = self._missed[peer] * _INTERVAL
            if seconds > self._timeout:
                return f"{self._names[peer]}: killed, hung or disconnected (no heartbeat for {seconds:.0f} s)"
        return ""

    def _watch(self) -> None:
        """Exit once a rank is lost; in a thread of its own, since `_beat` hangs if the store's machine vanishes."""
        beats, missed = 0, 0
        while not self._lost and not self._stopped.wait(_INTERVAL):
            beats, missed = self._beats, missed + 1 if self._beats == beats else 0
            if missed * _INTERVAL > self._timeout:
                self._lost = _STORE_LOST
        if self._lost and not self._stopped.wait(_GRACE):
            log.error("error: %s; the last checkpoint is good", self._lost)
            os._exit(1)
