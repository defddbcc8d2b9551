from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from unit.data.permutation import ShardOrder, permute_index

KEYS = st.integers(0, 2**63 - 1)
COUNTS = st.lists(st.integers(0, 12), min_size=1, max_size=40).filter(any)


def epoch(counts: list[int], key: int) -> list[int]:
    order = ShardOrder(counts)
    return [order.permute_index(place, key) for place in range(sum(counts))]


@given(COUNTS, KEYS)
def test_an_epoch_of_uneven_shards_has_every_image_once(counts: list[int], key: int) -> None:
    assert sorted(epoch(counts, key)) == list(range(sum(counts)))


@given(COUNTS, st.lists(st.tuples(st.integers(0, 10**6), KEYS), max_size=20))
def test_a_place_leads_to_the_same_image_whatever_was_asked_before(
    counts: list[int], asked: list[tuple[int, int]]
) -> None:
    order = ShardOrder(counts)
    for number, key in asked:
        place = number % sum(counts)
        assert order.permute_index(place, key) == ShardOrder(counts).permute_index(place, key)


@given(COUNTS)
def test_a_image_lies_in_the_shard_whose_turn_it_is(counts: list[int]) -> None:
    places = [(shard, place) for shard, count in enumerate(counts) for place in range(count)]
    order = ShardOrder(counts)
    assert [order.shard(index) for index in range(len(order))] == places


@given(st.integers(9, 60), KEYS)
def test_at_most_eight_shards_are_read_at_a_time_and_each_in_one_stretch(shards: int, key: int) -> None:
    counts = [5] * shards
    order = ShardOrder(counts)
    visited = [order.shard(index)[0] for index in epoch(counts, key)]
    begun = [set(visited[: place + 1]) for place in range(len(visited))]
    to_come = [set(visited[place:]) for place in range(len(visited))]
    assert max(len(before & after) for before, after in zip(begun, to_come, strict=True)) <= 8


def test_the_shards_of_a_window_are_mixed() -> None:
    order = ShardOrder([100] * 16)
    first = [order.shard(index)[0] for index in epoch([100] * 16, 7)[:800]]
    assert len(set(first)) == 8
    assert sum(one == two for one, two in pairwise(first)) < 160  # 100 expected, 792 if one came after the other
    half = first[:400]
    assert all(30 <= half.count(shard) <= 70 for shard in set(first))


def test_epochs_differ_in_their_windows_and_in_the_order_within() -> None:
    counts = [3] * 32
    order = ShardOrder(counts)
    epochs = [[order.shard(index)[0] for index in epoch(counts, key)] for key in range(50)]
    assert len({frozenset(shards[:24]) for shards in epochs}) == 50
    assert len({tuple(epoch([40], key)) for key in range(50)}) == 50


def test_windows_are_mixed_each_in_its_own_way() -> None:
    order = ShardOrder([10] * 32)
    slots = [order.shard(index)[0] for index in epoch([10] * 32, 7)]
    windows = [slots[start : start + 80] for start in range(0, 320, 80)]
    patterns = {tuple(list(dict.fromkeys(window)).index(shard) for shard in window) for window in windows}
    assert len(patterns) == 4


def test_a_single_shard_is_mixed_as_a_folder_is() -> None:
    assert sorted(epoch([50], 3)) == sorted(permute_index(place, 50, 3) for place in range(50))
    assert epoch([50], 3) != list(range(50))
