# SPDX-License-Identifier: BSD-3-Clause
"""Order and bounds of results, without anybody who makes them."""

from __future__ import annotations

import random

import pytest

from teamster.tasks.results import Raise, Results


def test_they_come_in_the_order_of_their_items() -> None:
    results = Results(ordered=True, lazy=False)
    for first, values in ((3, ["d"]), (1, ["b", "c"]), (0, ["a"]), (4, ["e", "f"])):
        results.take(first, values)
    assert results.ready == list("abcdef")
    assert (results.next, results.reported) == (6, 6)


@pytest.mark.parametrize("count", [10, 1_000, 20_000])
def test_any_order_of_arrival_gives_the_same(count: int) -> None:
    pieces, first = [], 0
    while first < count:
        size = random.Random(first).randint(1, 7)
        pieces.append((first, list(range(first, first + size))))
        first += size
    random.Random(1).shuffle(pieces)
    results = Results(ordered=True, lazy=False)
    for start, values in pieces:
        results.take(start, values)
    assert results.ready == list(range(first))


def test_unordered_ones_come_as_they_are() -> None:
    results = Results(ordered=False, lazy=True)
    results.take(5, ["f"])
    results.take(0, ["a"])
    assert [results.pop(), results.pop()] == ["f", "a"]


def test_an_error_waits_for_its_turn() -> None:
    results = Results(ordered=True, lazy=True)
    results.take(1, [Raise(KeyError("second"))])
    results.take(0, ["first"])
    assert results.pop() == "first"
    with pytest.raises(KeyError, match="second"):
        results.pop()


def test_a_list_may_be_added_to_only_at_its_end() -> None:
    results = Results(ordered=True, lazy=False)
    own = results.list_from(0)
    assert own is not None
    own += ["a", "b"]
    results.added(2)
    results.take(3, ["d"])
    assert results.list_from(3) is None
    results.take(2, ["c"])
    assert results.ready == list("abcd")
    assert results.list_from(4) is results.ready
    assert Results(ordered=True, lazy=True).list_from(0) is None


def test_a_consumer_bounds_what_is_under_way() -> None:
    results = Results(ordered=True, lazy=True)
    results.take(0, list(range(10)))
    assert results.may_pull(pulled=12, under_way=20)
    assert not results.may_pull(pulled=20, under_way=20)
    for _ in range(5):
        results.pop()
    assert results.may_pull(pulled=20, under_way=20)


def test_a_slow_item_lets_others_run_ahead_so_far_in_items_and_in_bytes() -> None:
    results = Results(ordered=True, lazy=True)
    for first in range(1, 65_536):
        results.take(first, [0])
    assert results.may_pull(pulled=70_000, under_way=1)
    results.take(65_536, [0])
    assert not results.may_pull(pulled=70_000, under_way=1)
    results = Results(ordered=True, lazy=True)
    for first in range(1, 27):
        results.take(first, [bytearray(10_000_000)])
    assert results.may_pull(pulled=30, under_way=1)
    results.take(27, [bytearray(10_000_000)])
    assert not results.may_pull(pulled=30, under_way=1)
