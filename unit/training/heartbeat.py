"""Signs of life between the processes of a run, so that none waits for one that is gone."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from contextlib import suppress
from datetime import timedelta

from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from unit.errors import UserError

log = logging.getLogger(__name__)

_INTERVAL = 1.0
"""Seconds between two signs of life."""
_SILENCE = 25.0
"""Seconds after which a rank counts as lost."""
_SILENCE_AFTER_FAILURE = 5.0
"""… when working together has failed already, and the question is who."""
_NO_STORE = "rank 0's machine, or torchrun there, can't be reached any more"
_GRACE = 20.0
"""Seconds for this process to save and end by itself, once a rank is lost."""


class PeerError(UserError):
    """What happened to another rank; the message names it."""


class Heartbeat:
    """Says that this rank lives, and ends the process when another one does not.

    Rank 0 watches all others, and they watch it; whoever fails, or finds one silent, writes it into a store that
    torchrun keeps, where all read it. So a rank that is killed, hangs, or whose machine is gone ends all others within
    a minute, each with the rank and the reason, also where the communication itself would wait for ever. Time is
    counted in signs of one's own, so that a job that is suspended as a whole goes on afterwards.
    """

    def __init__(self, rank: int, count: int) -> None:
        self.rank, self.count = rank, count
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=_SILENCE))
        again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self._store = PrefixStore(f"unit/{again}", store)
        self._store.set(f"name/{rank}", f"rank {rank} on {socket.gethostname()}")
        self._silence = _SILENCE
        self._lost = ""
        self._stopped = threading.Event()
        self._beats = 0
        self._seen: dict[int, tuple[bytes, int]] = {}
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._beat, self._watch)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Watch no longer."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(_SILENCE_AFTER_FAILURE)  # one may wait for a machine that is gone

    def fail(self, why: str) -> str:
        """Tell the others that this rank ends; returns it with the rank's name."""
        text = f"{self._name(self.rank)}: {why}"
        with suppress(RuntimeError):  # the store has gone with rank 0's machine
            self._store.compare_set("lost", "", text)
        return text

    def explain(self, error: RuntimeError) -> PeerError:
        """Who is lost, when working together failed with `error`; waits until that is known."""
        self._silence = _SILENCE_AFTER_FAILURE
        patience = time.monotonic() + 2 * _SILENCE_AFTER_FAILURE
        while not self._lost and time.monotonic() < patience:
            time.sleep(_INTERVAL / 10)
        return PeerError(self._lost or f"the ranks lost each other ({str(error).splitlines()[0]}); start the run again")

    def _beat(self) -> None:
        while not self._lost and not self._stopped.wait(_INTERVAL):
            try:
                self._store.set(f"beat/{self.rank}", str(self._beats))
                self._lost = self._told() or self._silent()
                self._beats += 1
            except RuntimeError:
                self._lost = _NO_STORE

    def _watch(self) -> None:
        """Apart from `_beat`, which waits for ever when the machine with the store vanishes from the network."""
        beats, missed = 0, 0
        while not self._lost and not self._stopped.wait(_INTERVAL):
            beats, missed = self._beats, missed + 1 if self._beats == beats else 0
            if missed * _INTERVAL > self._silence:
                self._lost = _NO_STORE
        if self._lost and not self._stopped.wait(_GRACE):
            log.error("error: %s; the last checkpoint is good", self._lost)
            os._exit(1)

    def _told(self) -> str:
        return self._store.get("lost").decode() if self._store.check(["lost"]) else ""

    def _silent(self) -> str:
        for rank in range(1, self.count) if self.rank == 0 else [0]:
            key = f"beat/{rank}"
            beat = self._store.get(key) if self._store.check([key]) else b""
            before, missed = self._seen.get(rank, (b"", 0))
            missed = missed + 1 if beat == before else 0
            self._seen[rank] = (beat, missed)
            if missed * _INTERVAL > self._silence:
                why = f"{self._name(rank)}: killed, hanging or cut off (no sign of life for {missed * _INTERVAL:.0f} s)"
                self._store.compare_set("lost", "", why)
                return self._told() or why
        return ""

    def _name(self, rank: int) -> str:
        with suppress(RuntimeError):
            if self._store.check([f"name/{rank}"]):
                return self._store.get(f"name/{rank}").decode()
        return f"rank {rank}"
