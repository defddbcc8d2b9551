"""The order of an epoch: where each place leads is a function of (place, key), without a list of the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from unit.seeds import seed_for

_MIXED = 8
"""Shards whose images are mixed: so many files are read from at once."""


def permute_index(index: int, count: int, key: int) -> int:
    """Where `index` of range(count) goes in the permutation of that range that `key` names, without a list of it.

    A four-round Feistel network on the next even number of bits, walked along its cycle until it lands in the range
    (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002).
    """
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for round_number in range(4):
            left, right = right, left ^ (_mix(right, key, round_number) & mask)
        index = left << half | right
        if index < count:
            return index


class ShardOrder:
    """Permutations of images that lie in shards, `counts` of them in each: first all of a few shards, then of others.

    The shards are permute_index, cut into windows of up to 8, and the images permute_index within each window.
    """

    def __init__(self, counts: Sequence[int]) -> None:
        self._counts = np.array(counts, np.int64)
        self._ends = self._counts.cumsum()
        self._epoch: _Epoch | None = None

    def __len__(self) -> int:
        return int(self._ends[-1])

    def shard(self, index: int) -> tuple[int, int]:
        """The shard of image `index`, and its place therein."""
        shard = _holder(self._ends, index)
        return shard, int(index - self._ends[shard] + self._counts[shard])

    def permute_index(self, place: int, key: int) -> int:
        """Where `place` goes in the permutation that `key` names."""
        epoch = self._laid_out(key)
        count, windows = len(epoch.shards), -(-len(epoch.shards) // _MIXED)
        window = ((_holder(epoch.ends, place) + 1) * windows - 1) // count
        first, last = window * count // windows, (window + 1) * count // windows
        begin, end = int(epoch.ends[first - 1]) if first else 0, int(epoch.ends[last - 1])
        mixed = begin + permute_index(place - begin, end - begin, seed_for(key, "window", window))
        slot = _holder(epoch.ends, mixed)
        return int(mixed - epoch.ends[slot] + self._ends[epoch.shards[slot]])

    def _laid_out(self, key: int) -> _Epoch:
        """Remembered, since all of an epoch's places ask for it: a number or two for each shard."""
        epoch = self._epoch
        if epoch is None or epoch.key != key:
            count = len(self._counts)
            shards = np.array([permute_index(slot, count, key) for slot in range(count)])
            epoch = self._epoch = _Epoch(key, shards, self._counts[shards].cumsum())
        return epoch


@dataclass(frozen=True)
class _Epoch:
    """The shards in the order of an epoch, and the places at which each ends."""

    key: int
    shards: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]


def _holder(ends: npt.NDArray[np.int64], place: int) -> int:
    """The first that ends behind `place`: empty shards hold none."""
    return int(ends.searchsorted(place, "right"))


def _mix(value: int, key: int, round_number: int) -> int:
    """64 well-mixed bits (the finalizer of splitmix64)."""
    value = (value ^ key ^ (round_number + 1) * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    value = (value ^ value >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return value ^ value >> 31
