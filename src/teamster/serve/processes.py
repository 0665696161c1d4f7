# SPDX-License-Identifier: BSD-3-Clause
"""Replicas in processes, for a model that holds the interpreter's lock, or that may crash.

::

    thread of the replica --inputs, encoders--> process: model --> answers, encoded --> thread
            |
            +-- the process dies: a new one computes the batch once more, each input alone; one that
                kills that process, too, is the one to blame
"""

from __future__ import annotations

import contextlib
from time import perf_counter

import teamster
from teamster.errors import WorkerDied
from teamster.serve.computing import Outcome, RequestBatch
from teamster.serve.errors import ReplicaDied
from teamster.serve.model import Model
from teamster.serve.replicas import Post, compute_here
from teamster.serve.request import Reply, Request
from teamster.spine.workers.exceptions import describe, rebuild
from teamster.spine.workers.inbox_thread import Take
from teamster.tasks.spawning import Process, start_process

_END_S = 5.0  # how long a process may take to end when it is told to


def compute_in_process(
    number: int, model: Model, inner_threads: int, idempotent: bool, take: Take, post: Post
) -> None:
    """The work of a replica's thread that has a process compute.

    Args:
        number: of the replica.
        model: what it serves; it is pickled.
        inner_threads: for the native libraries in the process.
        idempotent: whether a request may be computed once more when its process has died.
        take: gives batches.
        post: is told of them.
    """
    replica = _Remote(number, model, inner_threads, idempotent)
    while (batch := take()) is not None:
        replica.compute(batch)
        post(batch)
        del batch
    replica.close()


class _Remote:
    """The process of one replica, and the next one when that has died."""

    def __init__(self, number: int, model: Model, inner_threads: int, idempotent: bool) -> None:
        self._name = f"replica {number}"
        self._arguments = model, inner_threads, idempotent
        self._idempotent = idempotent
        self._process: Process | None = None

    def compute(self, batch: RequestBatch) -> None:
        try:
            self._ask(batch, batch.requests)
        except WorkerDied as death:
            batch.whole = False
            batch.outcomes = []
            for request in batch.requests:
                batch.outcomes.append(self._once_more(request, death))
        except BaseException as error:  # it cannot be started, or what it is sent does not pickle
            batch.fail(error)

    def _once_more(self, request: Request, death: WorkerDied) -> Outcome:
        alone = RequestBatch([request], request.rows, 1)
        if not self._idempotent:
            return ReplicaDied(str(death))
        try:
            self._ask(alone, [request])
        except WorkerDied as again:
            return ReplicaDied(str(again))
        return alone.outcomes[0]

    def _ask(self, batch: RequestBatch, requests: list[Request]) -> None:
        """Have the process compute; raises WorkerDied where it dies."""
        process = self._process
        began = perf_counter()
        try:
            if process is None:
                process = self._process = start_process(
                    self._name, self._name, _serve, self._arguments
                )
                process.daemon = True
            with contextlib.suppress(BrokenPipeError):  # the answer says so
                process.send([(request.value, request.encode) for request in requests])
            found = process.recv()
        except EOFError as end:
            self._process = None
            raise (end.__cause__ or end) from None
        kind, *told = found
        if kind == "failed":
            batch.fail(rebuild(told[0]))
            return
        outcomes, times, batch.whole, batch.delay_ns = told
        batch.seconds = perf_counter() - began  # the way there and back is part of what it takes
        batch.outcomes += [each if isinstance(each, Reply) else rebuild(each) for each in outcomes]
        for request in requests:
            request.started_ns, request.computed_ns = times
            request.size = len(requests)

    def close(self) -> None:
        if self._process is None:
            return
        with contextlib.suppress(Exception):
            self._process.send(None)
            self._process.join(_END_S)
        self._process.kill()


def _serve(model: Model, inner_threads: int, idempotent: bool) -> None:
    """The program of the process: the work of a thread, by messages."""
    program = teamster.parent()
    assert program is not None

    def take() -> RequestBatch | None:
        given = program.recv()
        if given is None:
            return None
        return RequestBatch([Request(*each) for each in given], len(given), 1)

    def post(batch: RequestBatch) -> None:
        if batch.failure is not None:
            program.send(("failed", describe(batch.failure)))
            return
        requests = batch.requests
        times = (requests[0].started_ns, requests[0].computed_ns) if requests else (0, 0)
        outcomes = [each if isinstance(each, Reply) else describe(each) for each in batch.outcomes]
        program.send(("done", outcomes, times, batch.whole, batch.delay_ns))

    compute_here(model, inner_threads, idempotent, take, post)
