# SPDX-License-Identifier: BSD-3-Clause
"""Who gets the next batch.

Decided with workers that are nothing but a list of what they were sent.
"""

from __future__ import annotations

from typing import Any

import pytest

from teamster.errors import TransferError, WorkerStartError
from teamster.spine.workers.backend import Backend
from teamster.spine.workers.batch import Batch, FunctionSpec
from teamster.spine.workers.dispatcher import Dispatcher
from teamster.spine.workers.handle import WorkerHandle
from teamster.spine.workers.job import CallOptions, Job


class Workers(Backend):
    """Takes whatever it is given, but for what it is to refuse."""

    kind = "process"
    can_kill = True
    depth = 2
    deepest = 4

    def __init__(self, most: int = 100, bad: object = None) -> None:
        super().__init__()
        self.sent: list[tuple[int, list[Any]]] = []
        self.counts: list[int] = []
        self.stopped: list[int] = []
        self.flushed = 0
        self._most, self._bad = most, bad

    def start(self, index: int, count: int) -> WorkerHandle:
        if len(self.counts) >= self._most:
            raise OSError("no process left")
        self.counts.append(count)
        return Handle(index, self)

    def send(self, worker: WorkerHandle, batch: Batch) -> None:
        if self._bad in batch.items:
            raise TransferError("it does not pickle", part="argument")
        self.sent.append((worker.index, list(batch.items)))

    def flush(self) -> None:
        self.flushed += 1


class Handle(WorkerHandle):
    def __init__(self, index: int, backend: Workers) -> None:
        super().__init__(index)
        self._backend = backend

    def stop(self) -> None:
        self._backend.stopped.append(self.index)


class Calls:
    """What a job was told."""

    def __init__(self, *, retries: int = 0) -> None:
        self.errors: list[tuple[int, BaseException]] = []
        self.failures: list[BaseException] = []
        options = CallOptions(retries, None, None)
        self.job = Job(
            FunctionSpec(abs),
            options,
            on_values=self._ignore,
            on_error=self._err,
            on_failure=self.failures.append,
        )

    def _ignore(self, first: int, values: list[Any]) -> None: ...

    def _err(self, index: int, error: BaseException) -> None:
        self.errors.append((index, error))

    def batches(self, *pieces: list[Any]) -> list[Batch]:
        made, first = [], 0
        for items in pieces:
            made.append(Batch(self.job, first, items))
            first += len(items)
        return made


def dispatch(dispatcher: Dispatcher, calls: Calls, *pieces: list[Any]) -> None:
    with dispatcher.lock:
        dispatcher.queue.extend(calls.batches(*pieces))
        dispatcher.jobs.add(calls.job)
        dispatcher.dispatch()


def test_idle_workers_come_first_then_new_ones_then_a_second_batch() -> None:
    backend, calls = Workers(), Calls()
    dispatcher = Dispatcher(backend, 2)
    dispatch(dispatcher, calls, [1], [2], [3], [4], [5])
    assert backend.sent == [(0, [1]), (1, [2]), (0, [3]), (1, [4])]
    assert [list(batch.items) for batch in dispatcher.queue if isinstance(batch, Batch)] == [[5]]
    assert backend.counts == [2, 2]
    assert backend.flushed == 1


def test_there_is_room_for_what_the_workers_may_hold() -> None:
    dispatcher, calls = Dispatcher(Workers(), 3), Calls()
    assert dispatcher.room(calls.job) == dispatcher.capacity(calls.job) == 6
    dispatch(dispatcher, calls, [1], [2])
    assert dispatcher.room(calls.job) == 4


def test_long_batches_are_handed_one_at_a_time_and_short_ones_several() -> None:
    dispatcher, calls = Dispatcher(Workers(), 1), Calls()
    calls.job.item_ns = Backend.long_ns + 1.0
    assert dispatcher.capacity(calls.job) == 1
    calls.job.item_ns = 10_000.0
    assert dispatcher.capacity(calls.job) == 4


def test_what_is_refused_is_tried_item_by_item_and_costs_its_own() -> None:
    backend, calls = Workers(bad="bad"), Calls()
    dispatcher = Dispatcher(backend, 8)
    dispatch(dispatcher, calls, ["a", "bad", "c"])
    assert sorted(items for _, items in backend.sent) == [["a"], ["c"]]
    assert [(index, type(error)) for index, error in calls.errors] == [(1, TransferError)]


def test_fewer_workers_have_to_do_where_the_system_gives_no_more() -> None:
    backend, calls = Workers(most=2), Calls()
    dispatcher = Dispatcher(backend, 8)
    dispatch(dispatcher, calls, *([number] for number in range(6)))
    assert dispatcher.count == 2
    assert [index for index, _ in backend.sent] == [0, 1, 0, 1]


def test_where_there_is_no_worker_at_all_every_call_fails() -> None:
    calls = Calls()
    dispatcher = Dispatcher(Workers(most=0), 8)
    dispatch(dispatcher, calls, [1], [2])
    assert [type(error) for error in calls.failures] == [WorkerStartError]
    assert not dispatcher.queue
    assert calls.job.cancelled


def test_a_worker_is_replaced_after_so_many_items() -> None:
    backend, calls = Workers(), Calls()
    dispatcher = Dispatcher(backend, 1, max_tasks=3)
    dispatch(dispatcher, calls, [1, 2], [3, 4])
    assert backend.sent == [(0, [1, 2]), (0, [3])]
    assert dispatcher.workers[0].retiring


def test_busy_workers_that_are_too_many_are_let_go_after_what_they_have() -> None:
    backend, calls = Workers(), Calls()
    dispatcher = Dispatcher(backend, 3)
    dispatch(dispatcher, calls, [1], [2])
    dispatcher.start_all()
    dispatcher.resize(1)
    assert backend.stopped == [2]
    assert [worker.retiring for worker in dispatcher.workers] == [False, True]


@pytest.mark.parametrize("count", [10, 1_000])
def test_one_dispatch_hands_out_all_that_there_is_room_for(count: int) -> None:
    backend, calls = Workers(most=count), Calls()
    dispatcher = Dispatcher(backend, count)
    dispatch(dispatcher, calls, *([number] for number in range(2 * count)))
    assert len(backend.sent) == 2 * count
    assert not dispatcher.queue


def test_a_cancelled_job_leaves_the_queue() -> None:
    backend, calls, others = Workers(), Calls(), Calls()
    dispatcher = Dispatcher(backend, 1)
    dispatch(dispatcher, calls, [1], [2], [3])
    dispatch(dispatcher, others, ["x"])
    calls.job.cancelled = True
    dispatcher.drop(calls.job)
    assert [list(batch.items) for batch in dispatcher.queue if isinstance(batch, Batch)] == [["x"]]
    assert dispatcher.is_busy_with(others.job)
