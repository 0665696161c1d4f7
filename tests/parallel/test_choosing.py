# SPDX-License-Identifier: BSD-3-Clause
"""How many replicas pay: decided from the first steps, said in one hint."""

from __future__ import annotations

import warnings

import pytest

from teamster.parallel.choosing import Choosing


def run(choosing: Choosing, seconds: dict[int, float], most_steps: int = 50) -> list[int]:
    """Steps until it is settled; each number of replicas takes the same time in every step."""
    taken = []
    while not choosing.settled and len(taken) < most_steps:
        taken.append(choosing.replicas)
        choosing.saw(choosing.replicas, seconds[choosing.replicas], 32)
    return taken


@pytest.mark.parametrize(("together", "chosen"), [(0.5, 4), (0.94, 4), (0.96, 1), (1.0, 1), (3.0, 1)])
def test_replicas_stay_only_where_they_are_clearly_faster(together: float, chosen: int) -> None:
    choosing = Choosing(4, fixed=False, cpu=True)
    taken = run(choosing, {1: 1.0, 4: together})
    assert choosing.settled
    assert choosing.replicas == chosen
    assert taken[0] == 1  # nothing is started before it has been tried without
    assert len(taken) <= 8
    assert set(taken) == {1, 4}


def test_the_first_step_of_each_is_a_warm_up() -> None:
    choosing, first = Choosing(2, fixed=False, cpu=True), {1, 2}
    while not choosing.settled:
        count = choosing.replicas
        choosing.saw(count, 100.0 if count in first else 1.0 / count, 8)
        first.discard(count)
    assert choosing.replicas == 2


def test_batches_of_different_sizes_are_compared_by_the_sample() -> None:
    choosing, samples = Choosing(2, fixed=False, cpu=True), 1
    while not choosing.settled:
        choosing.saw(choosing.replicas, samples * (1.0 if choosing.replicas == 1 else 0.6), samples)
        samples = samples % 7 + 1
    assert choosing.replicas == 2


def test_steps_that_fewer_replicas_ran_and_empty_ones_do_not_mislead() -> None:
    choosing = Choosing(4, fixed=False, cpu=True)
    for _ in range(20):
        choosing.saw(3, 0.001, 3)
    assert not choosing.settled
    choosing.saw(choosing.replicas, 0.1, 0)
    run(choosing, {1: 1.0, 4: 0.5})
    assert choosing.settled


@pytest.mark.parametrize(("most", "fixed", "cpu"), [(1, False, True), (3, True, True), (3, False, False)])
def test_what_is_given_needs_no_trial(most: int, fixed: bool, cpu: bool) -> None:
    choosing = Choosing(most, fixed=fixed, cpu=cpu)
    assert (choosing.settled, choosing.replicas) == (True, most)
    choosing.saw(most, 100.0, 1)
    assert choosing.replicas == most


def test_the_hint_comes_once_and_only_where_replicas_wait_for_each_other() -> None:
    choosing = Choosing(2, fixed=True, cpu=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        choosing.hint(11, 1.0)  # too early
    with pytest.warns(UserWarning, match=r"of 2 CPU replicas 1\.05 compute at one time"):
        choosing.hint(12, 1.05)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        choosing.hint(13, 1.0)
        Choosing(2, fixed=True, cpu=True).hint(50, 1.9)
        Choosing(2, fixed=False, cpu=True).hint(50, 1.0)
        Choosing(2, fixed=True, cpu=False).hint(50, 1.0)
        Choosing(1, fixed=True, cpu=True).hint(50, 1.0)
