# SPDX-License-Identifier: BSD-3-Clause
"""One model under one route: from a body to an answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from time import perf_counter_ns
from typing import Any

from teamster.machine.cpus import usable_cores
from teamster.serve.bodies import Bodies, encoder_for
from teamster.serve.choosing import Way, choose
from teamster.serve.computing import RequestBatch
from teamster.serve.cost import CostModel
from teamster.serve.errors import NotReady, Refused, WrongInput, told
from teamster.serve.metrics import Metrics
from teamster.serve.model import Model, show_key
from teamster.serve.past import Answered, Computed, Past
from teamster.serve.processes import compute_in_process
from teamster.serve.replicas import InLoop, ReplicaThread, Work, compute_here
from teamster.serve.request import Reply, Request
from teamster.serve.scheduler import Replica, Scheduler
from teamster.serve.warming import are_there
from teamster.serve.why import explain
from teamster.spine.plan.plan import Plan

_TIMEOUT = "x-request-timeout"
_log = logging.getLogger("teamster.serve")


@dataclass(frozen=True, slots=True)
class Options:
    """What a model is served with.

    Attributes:
        p99: seconds in which an answer is promised; None for no promise.
        workers: replicas; None for one a core.
        kind: "thread", "process", or "auto" for what computes more.
        idempotent: whether an input may be computed once more, where something went wrong.
        most: rows of a batch, of a model that takes several.
        limit: requests that may wait.
        example: an input, decoded, to measure with before the first request; None for none.
    """

    p99: float | None = None
    workers: int | None = None
    kind: str = "auto"
    idempotent: bool = True
    most: int = 32
    limit: int = 10_000
    example: Any = None


class Endpoint:
    """Serves one model.

    Args:
        name: for people.
        model: what it is.
        options: how.
    """

    def __init__(self, name: str, model: Model, options: Options) -> None:
        self.name, self._model, self._options = name, model, options
        self._bodies = Bodies(model.input_kind)
        self.metrics = Metrics(name)
        self._past = Past()
        self._cores = usable_cores()
        self.workers = options.workers or self._cores
        most = options.most if model.batches else 1
        self.scheduler = Scheduler(most, options.limit, self.workers)
        self.scheduler.on_batch = self._note
        self._replicas: list[Any] = []
        self._leaving: asyncio.Future[None] | None = None  # kept, for the loop keeps no task alive
        self._example_key = None if options.example is None else model.key(options.example)
        self.is_ready = False

    async def start(self) -> None:
        """Have the replicas, and measure what batches take, if there is an example."""
        options, most = self._options, self.scheduler.most
        way, candidates = await choose(options.kind, self._make, options.example, most)
        self._replicas = list(way.replicas)
        self.scheduler.use(way, candidates)
        self.is_ready = True

    async def _make(self, kind: str) -> list[Any]:
        loop = asyncio.get_running_loop()
        if kind == "serial":
            done, idempotent = self.scheduler.done, self._options.idempotent
            return [InLoop(self._model, idempotent, loop, done, self._leave_loop)]
        inner = max(1, self._cores // self.workers)
        replicas = [
            ReplicaThread(number, self._work(kind, number, inner), loop, self.scheduler.done)
            for number in range(self.workers)
        ]
        for each in replicas:
            each.start()
        return replicas

    def _leave_loop(self) -> None:
        """The model takes longer than its example has promised: threads from now on."""
        self._leaving = asyncio.ensure_future(self._to_threads())

    async def _to_threads(self) -> None:
        replicas = await self._make("thread")
        await are_there(replicas)
        if not self.is_ready:  # it has ended in between
            for each in replicas:
                each.close()
            return
        _log.warning("%s takes longer than its example: it computes in threads now", self.name)
        self._replicas = replicas
        self.scheduler.use(Way("thread", replicas, CostModel(), self.scheduler.most))

    def _work(self, kind: str, number: int, inner_threads: int) -> Work:
        options = self._options
        if kind == "process":
            return partial(
                compute_in_process, number, self._model, inner_threads, options.idempotent
            )
        return partial(compute_here, self._model, inner_threads, options.idempotent)

    async def answer(
        self, headers: Mapping[str, str], body: bytes, watch: Any, came_ns: int
    ) -> Reply:
        """The answer to a body.

        Args:
            headers: of the request, names in lower case.
            body: whole.
            watch: awaited until the client has gone, where a request waits for long.
            came_ns: when its head was there, of `perf_counter_ns`.
        """
        future: asyncio.Future[Reply | BaseException] = asyncio.get_running_loop().create_future()
        read_ns = perf_counter_ns()
        request = None
        try:
            request = self._request(headers, body, future)
            request.watch = watch
            self.scheduler.submit(request)
        except Refused as error:
            return self._answered(told(error), came_ns, read_ns, request)
        outcome = await future
        answer = self._told(outcome, request) if isinstance(outcome, BaseException) else outcome
        if request.computed_ns:
            answer = answer._replace(headers=(*answer.headers, _timing(request)))
            self.metrics.queued((request.started_ns - read_ns) / 1e9)
        return self._answered(answer, came_ns, read_ns, request)

    def _request(
        self, headers: Mapping[str, str], body: bytes, future: asyncio.Future[Any]
    ) -> Request:
        if not self.is_ready:
            raise NotReady(f"{self.name} is not ready")
        content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        value = self._bodies.decode(body, content_type, headers)

        def settle(outcome: Reply | BaseException) -> None:
            if not future.done():
                future.set_result(outcome)

        request = Request(value, encoder_for(headers.get("accept", "")), settle)
        request.key = self._model.key(value)
        seconds = self._seconds(headers)
        if seconds is not None:
            request.deadline_ns = request.received_ns + int(seconds * 1e9)
        return request

    def _seconds(self, headers: Mapping[str, str]) -> float | None:
        told_s = headers.get(_TIMEOUT)
        if told_s is None:
            return self._options.p99
        try:
            return float(told_s)
        except ValueError:
            raise WrongInput(f"{_TIMEOUT}: {told_s!r} is no number of seconds") from None

    def _told(self, error: BaseException, request: Request) -> Reply:
        if isinstance(error, Refused):
            return told(error)
        if self._example_key is not None and request.key != self._example_key:
            shape, example = (show_key(each) for each in (request.key, self._example_key))
            return told(WrongInput(f"the input is {shape}, the example {example}: {error}"))
        _log.error("%s has failed: %r", self.name, error, exc_info=error)
        return told(error)

    def _answered(
        self, answer: Reply, came_ns: int, read_ns: int, request: Request | None
    ) -> Reply:
        now_ns = perf_counter_ns()
        self.metrics.answered(answer.status, (now_ns - came_ns) / 1e9)
        moments = (now_ns, 0, 0) if request is None else _moments(request)
        batch = 0 if request is None else request.batch
        self._past.requests.append(
            Answered(came_ns, read_ns, *moments, now_ns, answer.status, batch)
        )
        return answer

    def _note(self, replica: Replica, batch: RequestBatch) -> None:
        self.metrics.batch(batch.rows, batch.seconds)
        if not batch.requests or not batch.requests[0].computed_ns:
            return  # it had no replica
        first = batch.requests[0]
        self._past.batches.append(
            Computed(
                batch.number,
                replica.number,
                batch.rows,
                first.started_ns,
                first.computed_ns,
                batch.held_ns,
                batch.delay_ns,
                batch.whole,
            )
        )

    def why(self) -> dict[str, Any]:
        """Why the slowest of the last requests were slow: what JSON holds."""
        return {"model": self.name, **explain(self._past, self._options.p99)}

    @property
    def plan(self) -> Plan:
        """Replicas, and why so many."""
        return self.scheduler.plan()

    async def drain(self) -> None:
        """Until all that were let in have their answers."""
        self.is_ready = False
        await self.scheduler.drain()

    def close(self) -> None:
        """End the replicas."""
        self.is_ready = False
        for each in self._replicas:
            each.close()
        self._replicas = []


def _moments(request: Request) -> tuple[int, int, int]:
    return request.received_ns, request.started_ns, request.computed_ns


def _timing(request: Request) -> tuple[bytes, bytes]:
    """Of the ``Server-Timing`` header: milliseconds in the queue, and of the computation."""
    queued = (request.started_ns - request.received_ns) / 1e6
    computed = (request.computed_ns - request.started_ns) / 1e6
    return (
        b"server-timing",
        b"queue;dur=%.3f, compute;dur=%.3f, batch;desc=%d" % (queued, computed, request.size),
    )
