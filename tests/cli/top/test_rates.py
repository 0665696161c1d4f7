# SPDX-License-Identifier: BSD-3-Clause
"""Rates out of answers that follow each other."""

import json
from typing import Any

import pytest

from teamster.cli.top.answers import read_answer
from teamster.cli.top.rates import WINDOW_S, History, Pace


def pace_of(*samples: tuple[float, int]) -> float | None:
    pace = Pace()
    for at_s, count in samples:
        pace.add(at_s, count)
    return pace.per_s()


def call(
    seconds: float, done: int, total: int | None = 1000, function: str = "f"
) -> dict[str, Any]:
    return {"function": function, "done": done, "total": total, "seconds": seconds}


def history_of(*answers: tuple[float, dict[str, Any]]) -> History:
    history = History()
    for now_s, pool in answers:
        history.add(
            read_answer(json.dumps({"version": 1, "now_ns": now_s * 1e9, "pools": [pool]}).encode())
        )
    return history


def test_one_look_is_no_rate() -> None:
    assert pace_of((1.0, 10)) is None


def test_two_looks_are_a_rate() -> None:
    assert pace_of((1.0, 10), (3.0, 14)) == 2.0


def test_the_last_seconds_count_when_enough_happened() -> None:
    # ten a second for 20 s, then a hundred a second
    samples = [(float(second), 10 * second) for second in range(20)]
    samples += [(20.0 + second, 200 + 100 * second) for second in range(int(WINDOW_S) + 1)]
    assert pace_of(*samples) == 100.0


def test_rare_items_are_counted_over_a_longer_time() -> None:
    assert pace_of(*[(float(second), second // 10) for second in range(60)]) == pytest.approx(
        0.1, rel=0.2
    )


def test_a_standstill_shows() -> None:
    samples = [(float(second), min(100 * second, 1000)) for second in range(200)]
    assert pace_of(*samples) == 0.0


def test_a_count_that_falls_belongs_to_something_new() -> None:
    assert pace_of((1.0, 1000), (2.0, 3), (3.0, 5)) == 2.0


def test_two_looks_at_the_same_time() -> None:
    assert pace_of((1.0, 1), (1.0, 2)) is None


def test_a_pool_after_one_look_has_the_mean_so_far() -> None:
    (pool,) = history_of((10.0, {"items": 50, "calls": [call(5.0, 50, 100)]})).pools
    assert pool.items_per_s == 10.0
    assert pool.calls[0].left_s == 5.0


def test_time_left_follows_the_latest_rate() -> None:
    (pool,) = history_of(
        (10.0, {"items": 50, "calls": [call(5.0, 50, 150)]}),
        (12.0, {"items": 100, "calls": [call(7.0, 100, 150)]}),
    ).pools
    assert (pool.items_per_s, pool.calls[0].items_per_s, pool.calls[0].left_s) == (25.0, 25.0, 2.0)


def test_nobody_knows_the_time_left() -> None:
    (pool,) = history_of(
        (10.0, {"items": 50, "calls": [call(5.0, 50, None), call(3.0, 0, 50)]})
    ).pools
    assert [each.left_s for each in pool.calls] == [None, None]


def test_calls_are_known_again_when_another_ends() -> None:
    first = {"items": 0, "calls": [call(9.0, 900), call(5.0, 50)]}
    second = {"items": 0, "calls": [call(7.0, 70)]}
    (pool,) = history_of((10.0, first), (12.0, second)).pools
    assert [each.items_per_s for each in pool.calls] == [10.0]


def test_the_same_function_again_is_another_call() -> None:
    (pool,) = history_of(
        (10.0, {"calls": [call(5.0, 50)]}), (12.0, {"calls": [call(1.0, 60)]})
    ).pools
    assert pool.calls[0].items_per_s == 60.0


def test_use_is_the_mean_of_what_was_seen() -> None:
    both = [{"state": "running"}, {"state": "loading"}]
    half = [{"state": "running"}, {"state": "idle"}, {"state": "absent"}]
    assert history_of((1.0, {"workers": both}), (2.0, {"workers": half})).pools[0].used == 0.75
    assert (
        history_of((1.0, {"workers": both}), (2.0 + WINDOW_S, {"workers": half})).pools[0].used
        == 0.5
    )
    assert history_of((1.0, {"workers": []})).pools[0].used == 0.0


def test_workers_of_a_kind_that_was_tried_and_left_are_not_to_be_used() -> None:
    left = [{"kind": "process", "state": "idle"}, {"kind": "caller", "state": "idle"}]
    used = [{"kind": "thread", "state": state} for state in ("running", "idle")]
    assert history_of((1.0, {"title": "thread(2)", "workers": left + used})).pools[0].used == 0.5
    assert history_of((1.0, {"title": "serial(1)", "workers": left})).pools[0].used == 0.0


def test_another_pool_in_the_same_place_starts_anew() -> None:
    busy = {"items": 500, "workers": [{"state": "running"}]}
    (pool,) = history_of((1.0, busy), (2.0, {"items": 0, "workers": [{"state": "idle"}]})).pools
    assert (pool.used, pool.items_per_s) == (0.0, 0.0)
