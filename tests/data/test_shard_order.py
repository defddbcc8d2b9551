"""The order of an epoch of shards: a few of them at a time, their images shuffled."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from unit.data.shards import Shards

SEEDS = st.integers(0, 2**63 - 1)
COUNTS = st.lists(st.integers(0, 12), min_size=1, max_size=40).filter(any)


def shards_of(counts: list[int]) -> Shards:
    """Shards of so many images, of which shard s calls its image k s/k."""
    files = [str(number) for number in range(len(counts))]
    names = [(b"%d" % k,) for count in counts for k in range(count)]
    shard_numbers = np.repeat(np.arange(len(counts)), counts)
    return Shards(Path(), files, [(0, 0)] * len(files), np.array(names, [("name", "S4")]), shard_numbers)


def visited(counts: list[int], seed: int) -> list[int]:
    """The shard of each image of an epoch."""
    shards = shards_of(counts)
    return [int(shards.name(index).partition("/")[0]) for index in shards.epoch_order(seed).tolist()]


@given(COUNTS, SEEDS)
def test_an_epoch_of_uneven_shards_has_every_image_once(counts: list[int], seed: int) -> None:
    order = shards_of(counts).epoch_order(seed).tolist()
    assert sorted(order) == list(range(sum(counts)))
    assert order == shards_of(counts).epoch_order(seed).tolist()


@given(COUNTS)
def test_images_are_numbered_through_the_shards(counts: list[int]) -> None:
    shards = shards_of(counts)
    names = [f"{shard}/{number}" for shard, count in enumerate(counts) for number in range(count)]
    assert [shards.name(index) for index in range(len(shards))] == names


@given(st.integers(9, 60), SEEDS)
def test_at_most_eight_shards_are_read_at_a_time_and_each_in_one_stretch(count: int, seed: int) -> None:
    order = visited([5] * count, seed)
    begun = [set(order[: sample_index + 1]) for sample_index in range(len(order))]
    to_come = [set(order[sample_index:]) for sample_index in range(len(order))]
    assert max(len(before & after) for before, after in zip(begun, to_come, strict=True)) <= 8


def test_the_shards_of_a_window_are_mixed() -> None:
    first = visited([100] * 16, 7)[:800]
    assert len(set(first)) == 8
    assert sum(one == two for one, two in pairwise(first)) < 160  # 100 expected, 792 if one came after the other
    half = first[:400]
    assert all(30 <= half.count(shard) <= 70 for shard in set(first))


def test_epochs_differ_in_their_windows_and_in_the_order_within() -> None:
    epochs = [visited([3] * 32, seed) for seed in range(50)]
    assert len({frozenset(shards[:24]) for shards in epochs}) == 50
    assert len({tuple(shards_of([40]).epoch_order(seed).tolist()) for seed in range(50)}) == 50


def test_windows_are_mixed_each_in_its_own_way() -> None:
    order = visited([10] * 32, 7)
    windows = [order[start : start + 80] for start in range(0, 320, 80)]
    patterns = {tuple(list(dict.fromkeys(window)).index(shard) for shard in window) for window in windows}
    assert len(patterns) == 4
