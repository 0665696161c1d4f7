# SPDX-License-Identifier: BSD-3-Clause
"""Settings take turns until the fastest is known.

Decided from seconds that are told, without a clock.
"""

from __future__ import annotations

from itertools import pairwise

import pytest

from teamster.spine.plan.trials import Trials, Turn


def steps(trials: Trials[str], seconds: dict[str, float], most: int = 60) -> list[str]:
    """Steps until nothing is tried any more; what was tried, in order."""
    taken: list[str] = []
    while (turn := trials.begin()).counts and len(taken) < most:
        taken.append(turn.setting)
        turn.end(seconds[turn.setting])
    return taken


@pytest.mark.parametrize(("other", "best"), [(0.5, "b"), (0.94, "b"), (0.96, "a"), (3.0, "a")])
def test_another_setting_stays_only_where_it_is_clearly_faster(other: float, best: str) -> None:
    trials = Trials(["a", "b"])
    assert set(steps(trials, {"a": 1.0, "b": other})) == {"a", "b"}
    assert trials.best == trials.begin().setting == best


def test_what_is_far_behind_has_no_further_turn() -> None:
    trials = Trials(["a", "b", "c"])
    taken = steps(trials, {"a": 1.0, "b": 2.5, "c": 0.9})
    assert (taken.count("a"), taken.count("b"), taken.count("c")) == (4, 2, 4)


def test_one_setting_alone_is_not_tried() -> None:
    trials = Trials(["a"])
    assert not trials.is_open()
    assert not trials.begin().counts
    assert all(trials.begin().setting == "a" for _ in range(2_000))


def test_a_step_that_fails_is_no_turn() -> None:
    trials = Trials(["a", "b"])
    assert [trials.begin().setting for _ in range(20)] == ["a"] * 20
    assert steps(trials, {"a": 1.0, "b": 0.5})[:2] == ["a", "b"]


def test_a_part_that_comes_later_counts_where_all_have_had_one() -> None:
    trials = Trials(["a", "b"])
    while (turn := trials.begin()).counts:
        turn.end(1.0 if turn.setting == "a" else 2.0)
        turn.later_seconds = 8.0 if turn.setting == "a" else 3.0
    assert trials.best == "b"


def test_a_turn_that_ends_when_its_round_is_over_counts_for_nothing() -> None:
    trials = Trials(["a", "b"])
    late: Turn[str] = trials.begin()
    steps(trials, {"a": 1.0, "b": 0.5})
    late.end(0.001)
    assert trials.best == "b"
    assert not trials.is_open()


def test_it_is_looked_at_again_and_less_and_less_often() -> None:
    trials, rounds, step = Trials(["a", "b"]), list[int](), 0
    while len(rounds) < 4:
        step += 1
        turn = trials.begin()
        if turn.counts:
            if not rounds or step - rounds[-1] > 100:
                rounds.append(step)
            turn.end(1.0)
    pauses = [later - earlier for earlier, later in pairwise(rounds)]
    assert [pause // 500 for pause in pauses] == [1, 2, 4]


def test_what_was_ruled_out_is_not_tried_again() -> None:
    trials = Trials(["a", "b"])
    trials.begin().end(1.0)
    trials.rule_out()
    assert {trials.begin().setting for _ in range(3_000)} == {"a"}


def test_only_the_latest_step_is_the_latest() -> None:
    trials = Trials(["a", "b"])
    first, second = trials.begin(), trials.begin()
    assert (first.is_latest, second.is_latest) == (False, True)
