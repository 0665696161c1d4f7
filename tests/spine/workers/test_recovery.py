# SPDX-License-Identifier: BSD-3-Clause
"""What becomes of a dead worker's batches: the decision as a table, without starting anything."""

from typing import Any

import pytest

from teamster.errors import TaskTimeout, WorkerDied
from teamster.spine.workers.batch import Batch, FunctionSpec
from teamster.spine.workers.handle import Died, WorkerHandle
from teamster.spine.workers.job import CallOptions, Job
from teamster.spine.workers.recovery import Verdict, judge


def job(retries: int = 0) -> Job:
    nothing: Any = lambda *_: None  # noqa: E731
    return Job(
        FunctionSpec(abs),
        CallOptions(retries, None, None),
        on_values=nothing,
        on_error=nothing,
        on_failure=nothing,
    )


def member_with(*batches: Batch) -> WorkerHandle:
    worker = WorkerHandle(0)
    for batch in batches:
        batch.number = worker.next_number
        worker.next_number += batch.size
        worker.outstanding.append(batch)
    return worker


def verdict_of(
    worker: WorkerHandle,
    running: tuple[int, int] | None,
    *,
    by_memory: bool = False,
    unsure: bool = False,
) -> Verdict:
    def describe(index: int, attempts: int) -> WorkerDied:
        return WorkerDied(f"{index}/{attempts}", index=index)

    return judge(worker, Died(worker, running, describe, by_memory, unsure))


def again(verdict: Verdict) -> list[tuple[int, list[Any]]]:
    return [(batch.first, list(batch.items)) for batch in verdict.again]


def test_only_the_running_item_fails() -> None:
    batch = Batch(job(), 10, list("abcde"))
    batch.done = 2
    verdict = verdict_of(member_with(batch), (3, 1))
    assert [
        (offset, error.index)
        for _, offset, error in verdict.errors
        if isinstance(error, WorkerDied)
    ] == [(2, 12)]
    assert again(verdict) == [(13, ["d", "e"])]


def test_with_retries_it_runs_again_alone_after_memory_ran_out() -> None:
    batch = Batch(job(retries=1), 10, list("abc"))
    verdict = verdict_of(member_with(batch), (1, 1), by_memory=True)
    assert verdict.errors == []
    assert verdict.retried == 1
    assert again(verdict) == [(10, ["a"]), (11, ["b", "c"])]
    assert (verdict.again[0].attempts, verdict.again[0].exclusive, verdict.again[0].one_by_one) == (
        1,
        True,
        True,
    )


def test_retries_end() -> None:
    batch = Batch(job(retries=1), 10, ["a"])
    batch.attempts = 1
    verdict = verdict_of(member_with(batch), (1, 1))
    assert str(verdict.errors[0][2]) == "10/2"
    assert verdict.again == []


def test_a_block_of_many_is_run_again_one_by_one() -> None:
    batch = Batch(job(), 0, list("abcdef"))
    batch.done = 1
    verdict = verdict_of(member_with(batch), (2, 3))
    assert again(verdict) == [(1, ["b"]), (2, ["c"]), (3, ["d"]), (4, ["e", "f"])]
    assert [piece.one_by_one for piece in verdict.again] == [True, True, True, False]


def test_between_items_nobody_is_blamed() -> None:
    batch, queued = Batch(job(), 0, list("abc")), Batch(job(), 7, list("xy"))
    batch.done = 1
    verdict = verdict_of(member_with(batch, queued), None)
    assert verdict.errors == []
    assert again(verdict) == [(1, ["b", "c"]), (7, ["x", "y"])]


def test_items_taken_back_before_are_not_run_twice() -> None:
    batch = Batch(job(), 0, list("abcd"))
    worker = member_with(batch)
    worker.taken_back = 3
    verdict = verdict_of(worker, (1, 1))
    assert again(verdict) == [(1, ["b"])]


def test_a_timeout_costs_the_item_that_it_was_for() -> None:
    worker = member_with(Batch(job(), 0, list("abc")))
    worker.killed_for = (1, TaskTimeout("slow"))
    verdict = verdict_of(worker, (1, 1))
    assert isinstance(verdict.errors[0][2], TaskTimeout)
    assert again(verdict) == [(1, ["b", "c"])]


def test_a_kill_that_comes_late_costs_nobody() -> None:
    """The item was over when the kill arrived: the next one had just started, and is innocent."""
    batch = Batch(job(), 0, list("abc"))
    batch.done = 1
    worker = member_with(batch)
    worker.killed_for = (1, TaskTimeout("slow"))
    verdict = verdict_of(worker, (2, 1))
    assert verdict.errors == []
    assert again(verdict) == [(1, ["b"]), (2, ["c"])]


@pytest.mark.parametrize("running", [None, (1, 1)])
def test_cancelled_jobs_are_let_go(running: tuple[int, int] | None) -> None:
    cancelled = job()
    cancelled.cancelled = True
    verdict = verdict_of(member_with(Batch(cancelled, 0, list("ab"))), running)
    assert verdict == Verdict()


def test_where_nobody_knows_what_ran_every_item_that_was_not_reported_may_have() -> None:
    """A machine that cannot be reached: law 1 says at most 1 + retries times."""
    first, second = Batch(job(), 10, list("abc")), Batch(job(), 20, list("de"))
    first.done = 1
    verdict = verdict_of(member_with(first, second), None, unsure=True)
    assert [str(error) for _, _, error in verdict.errors] == ["11/1", "12/1", "20/1", "21/1"]
    assert verdict.again == []
    verdict = verdict_of(member_with(Batch(job(retries=1), 10, list("ab"))), (1, 1), unsure=True)
    assert verdict.errors == []
    assert [(batch.first, batch.attempts, batch.one_by_one) for batch in verdict.again] == [
        (10, 1, True),
        (11, 1, True),
    ]
    assert verdict.retried == 2
