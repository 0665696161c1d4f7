# SPDX-License-Identifier: BSD-3-Clause
"""`backend="auto"` with options, with a plan, and in the calls after the first."""

import time
from typing import Any

import pytest

import teamster as ts
from tests.tasks.auto.work import burn, wait


def test_allow_keeps_to_what_is_allowed() -> None:
    with ts.Pool(allow=("serial", "process")) as pool:
        assert set(
            pool.map(lambda _: time.sleep(0.005) or ts.current_worker().kind, range(200))
        ) <= {"serial", "process"}  # type: ignore[union-attr]
        assert {each.backend for each in pool.plan.candidates} <= {"serial", "process"}
    assert ts.map(lambda _: ts.current_worker().kind, range(3), allow=("thread",)) == ["thread"] * 3  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"retries": 1}, "retries"),
        ({"timeout": 5.0}, "timeout"),
        ({"max_tasks_per_worker": 9}, "limit of tasks"),
    ],
)
def test_what_only_processes_can_do_makes_the_choice(options: dict[str, Any], reason: str) -> None:
    with ts.Pool(**options) as pool:
        assert pool.plan.backend == "process"
        assert reason in pool.plan.reason
    with pytest.raises(ts.UsageError, match="has no 'process'"):
        ts.Pool(allow=("serial", "thread"), **options)


def test_a_plan_can_be_passed_in() -> None:
    plan = ts.Plan("thread", 3, "known from yesterday")
    assert {ts.WorkerInfo(index, "thread", 3) for index in range(3)} >= set(
        ts.map(lambda _: ts.current_worker(), range(50), plan=plan)
    )
    with pytest.raises(ts.UsageError, match="give one or the other"):
        ts.map(abs, [1], plan=plan, backend="process")
    with pytest.raises(ts.UsageError, match="plan must be a Plan"):
        ts.map(abs, [1], plan="thread")


def test_a_second_call_starts_with_what_the_first_has_found() -> None:
    with ts.Pool() as pool:
        pool.map(wait, range(300))
        assert pool.plan.backend == "thread"
        kinds = pool.map(lambda n: wait(n) or ts.current_worker().kind, range(100))  # type: ignore[func-returns-value, union-attr]
        assert kinds[0] == "serial"  # another function
        probed = pool.report().items_by_worker[0]
        pool.map(wait, range(100))
        assert pool.report().items_by_worker[0] == probed


def test_a_task_that_maps_with_its_own_pool_does_not_wait_for_itself() -> None:
    with ts.Pool(allow=("serial", "thread")) as pool:
        assert pool.map(lambda n: time.sleep(0.01) or sum(pool.map(abs, range(n))), range(100)) == [
            sum(range(n)) for n in range(100)
        ]


def test_a_plan_speaks_of_the_items_that_its_workers_had() -> None:
    """The first items are of another kind.

    What the plan says must be about those that its choice is for.
    """

    def turn(number: int) -> None:
        burn(2_000) if number < 2_000 else time.sleep(0.03)

    with ts.Pool(allow=("serial", "thread")) as pool:
        pool.map(turn, range(3_000))
        evidence = pool.plan.evidence
    assert evidence is not None
    if evidence.by:
        assert evidence.by.startswith("thread(")
        assert f"measured in {evidence.by}" in str(pool.plan)
    # Those measured may begin with some of the first kind, which take a hundredth
    assert (evidence.took_s or evidence.wall_s) > 0.005
