# SPDX-License-Identifier: BSD-3-Clause
"""Threads that each have a replica of the model, and compute batches.

::

    event loop --batch--> inbox of the thread --> model --> answers --call_soon_threadsafe--> loop

Weights are shared: a replica in a thread is a reference. What an output is encoded as is made here,
so that the loop has nothing of it to do.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

from teamster.machine.native_threads import limit_in_this_thread
from teamster.serve.model import Compute, Model
from teamster.serve.request import Reply, Request
from teamster.spine.workers.inbox_thread import InboxThread, Take

_END_S = 5.0  # how long a thread may take to end

Outcome = Reply | BaseException


class RequestBatch:
    """Requests that are computed at a time.

    Attributes:
        requests: of it.
        rows: of all of them.
        busy: replicas that compute when it begins, its own included.
        outcomes: an answer or an error of each, when it is done.
        told: called with it when it is done, in place of the scheduler; None for that.
        whole: whether no part of it was run again.
        seconds: of the computation, without the encoding.
    """

    __slots__ = ("busy", "outcomes", "requests", "rows", "seconds", "told", "whole")

    def __init__(self, requests: list[Request], rows: int, busy: int) -> None:
        self.requests, self.rows, self.busy = requests, rows, busy
        self.outcomes: list[Outcome] = []
        self.told: Callable[[RequestBatch], None] | None = None
        self.whole = True
        self.seconds = 0.0


class ThreadReplica:
    """One thread.

    Args:
        number: of the replica.
        model: what it serves.
        inner_threads: for the native libraries in it.
        loop: that is told what is done.
        done: called there with the replica and the batch.
    """

    def __init__(
        self,
        number: int,
        model: Model,
        inner_threads: int,
        loop: AbstractEventLoop,
        done: Callable[[ThreadReplica, RequestBatch], None],
    ) -> None:
        self.number = number
        self.since_ns = 0
        """When its batch began; 0 while it has none."""

        def post(batch: RequestBatch) -> None:
            if batch.told is not None:
                loop.call_soon_threadsafe(batch.told, batch)
            else:
                loop.call_soon_threadsafe(done, self, batch)

        self._thread = InboxThread(f"teamster-replica-{number}", _work, model, inner_threads, post)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def run(self, batch: RequestBatch) -> None:
        """Compute a batch; `done` is told."""
        self.since_ns = perf_counter_ns()
        self._thread.put(batch)

    def close(self) -> None:
        """Let it end after what it has."""
        self._thread.end()
        self._thread.join(_END_S)


def _work(
    take: Take, model: Model, inner_threads: int, post: Callable[[RequestBatch], None]
) -> None:
    limit_in_this_thread(inner_threads)
    replica = model.replica()
    while (batch := take()) is not None:
        compute(model, replica, batch)
        post(batch)
        del batch


def compute(model: Model, replica: Compute, batch: RequestBatch) -> None:
    """Have a replica compute a batch, and the answers encoded.

    An error of a batch is the error of the one input that it comes from: halves are tried alone.

    Args:
        model: of the replica.
        replica: gives as many outputs as it is given inputs.
        batch: that has its outcomes then.
    """
    requests = batch.requests
    began = perf_counter_ns()
    values = [_prepared(model, request.value) for request in requests]
    good = [each for each in values if not isinstance(each, _Failed)]
    outputs = iter(_halving(replica, good, batch) if good else ())
    found = [each if isinstance(each, _Failed) else next(outputs) for each in values]
    ended = perf_counter_ns()
    batch.seconds = (ended - began) / 1e9
    for request, output in zip(requests, found, strict=True):
        request.started_ns, request.computed_ns, request.size = began, ended, len(requests)
        batch.outcomes.append(_encoded(request, output))


def _prepared(model: Model, value: Any) -> Any:
    try:
        return model.prepare(value)
    except Exception as error:
        return _Failed(error)


def _halving(replica: Compute, values: list[Any], batch: RequestBatch) -> list[Any]:
    try:
        return replica(values)
    except Exception as error:
        if len(values) == 1:
            return [_Failed(error)]
    batch.whole = False
    middle = len(values) // 2
    return [
        *_halving(replica, values[:middle], batch),
        *_halving(replica, values[middle:], batch),
    ]


class _Failed:
    """In place of an output."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


def _encoded(request: Request, output: Any) -> Outcome:
    if isinstance(output, _Failed):
        return output.error
    try:
        return request.encode(output)
    except Exception as error:
        return error
