# SPDX-License-Identifier: BSD-3-Clause
"""One model under one route: from a body to an answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter_ns
from typing import Any

from teamster.machine.cpus import usable_cores
from teamster.serve.bodies import Bodies, to_json
from teamster.serve.choosing import Way, choose
from teamster.serve.computing import RequestBatch
from teamster.serve.cost import CostModel
from teamster.serve.errors import NotReady, Refused, WrongInput
from teamster.serve.exchange import Dialect, Incoming, Inputs, Outcomes, requests_of, shared
from teamster.serve.metrics import Metrics
from teamster.serve.model import Model, show_key
from teamster.serve.past import Answered, Computed, Past
from teamster.serve.processes import compute_in_process
from teamster.serve.replicas import InLoop, ReplicaThread, Work, compute_here
from teamster.serve.request import Reply, Request
from teamster.serve.scheduler import Replica, Scheduler
from teamster.serve.streaming import NOT_KEPT, Form, Stream
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

    Attributes:
        name: as above.
        batches: whether the model computes several inputs at a time.
        input_kind: of an input, by annotations.
        example: an input; None for none.
        is_ready: whether it takes requests.
    """

    def __init__(self, name: str, model: Model, options: Options) -> None:
        self.name, self._model, self._options = name, model, options
        self.batches, self.input_kind = model.batches, model.input_kind
        self.example = options.example
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
        options, most, kind = self._options, self.scheduler.most, self._options.kind
        if kind == "auto" and self._model.streams:
            kind = "thread"  # the one that hands over what is there
        way, candidates = await choose(kind, self._make, options.example, most)
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
        self, body: bytes, incoming: Incoming, dialect: Dialect | None = None
    ) -> Reply:
        """The answer to a body.

        Args:
            body: whole.
            incoming: what came with it.
            dialect: how inputs and answers are written; None for the body as the input itself.
        """
        dialect = dialect or self._bodies
        read_ns = perf_counter_ns()
        requests: list[Request] = []
        try:
            if not self.is_ready:
                raise NotReady(f"{self.name} is not ready")
            inputs = dialect.read(body, incoming.headers)
            if inputs.form is not None and self.scheduler.kind == "thread":
                return await self._streamed(inputs, inputs.form, incoming, read_ns)
            outcomes = Outcomes(len(inputs.values))
            requests = requests_of(inputs, self._model.key, incoming.watch, outcomes)
            self._submit(requests, self._seconds(incoming.headers))
            await outcomes.done
            if outcomes.failure is not None:
                answer = dialect.told(self._blamed(outcomes.failure, requests))
            else:
                answer = dialect.write(inputs, outcomes.replies)
        except Refused as error:
            answer = dialect.told(error)
        first = requests[0] if requests else None
        if first is not None and first.computed_ns:
            answer = answer._replace(headers=(*answer.headers, _timing(first)))
            self.metrics.queued((first.started_ns - read_ns) / 1e9)
        self._answered(answer.status, incoming.came_ns, read_ns, first)
        return answer

    async def _streamed(
        self, inputs: Inputs, form: Form, incoming: Incoming, read_ns: int
    ) -> Reply:
        """The answer begins with the first item; an error before that is one like any other."""
        stream = Stream(form, to_json, asyncio.get_running_loop())
        watch = shared(incoming.watch)
        outcomes = Outcomes(1)
        inputs = inputs._replace(encode=stream)
        requests = requests_of(inputs, self._model.key, watch, outcomes)
        self._submit(requests, self._seconds(incoming.headers))
        (request,) = requests
        first = await stream.first(outcomes.done)
        if first is None and outcomes.failure is not None:
            answer = self._bodies.told(self._blamed(outcomes.failure, requests))
            self._answered(answer.status, incoming.came_ns, read_ns, request)
            return answer

        gone = asyncio.ensure_future(watch())
        gone.add_done_callback(lambda _: stream.leave())

        async def parts() -> AsyncGenerator[bytes, None]:
            try:
                async for part in stream.rest(first, lambda: outcomes.failure):
                    yield part
            finally:
                stream.leave()
                gone.cancel()
                self._answered(200, incoming.came_ns, read_ns, request)

        return Reply(200, b"", form.content_type, NOT_KEPT, parts())

    def _submit(self, requests: Sequence[Request], seconds: float | None) -> None:
        """All, or none."""
        try:
            for request in requests:
                if seconds is not None:
                    request.deadline_ns = request.received_ns + int(seconds * 1e9)
                self.scheduler.submit(request)
        except Refused:
            for request in requests:
                request.is_gone = True
            raise

    def _seconds(self, headers: Mapping[str, str]) -> float | None:
        told_s = headers.get(_TIMEOUT)
        if told_s is None:
            return self._options.p99
        try:
            return float(told_s)
        except ValueError:
            raise WrongInput(f"{_TIMEOUT}: {told_s!r} is no number of seconds") from None

    def _blamed(self, error: BaseException, requests: Sequence[Request]) -> BaseException:
        """The error that the client is told: of an input unlike the example, that it is so."""
        for request in requests:
            request.is_gone = True  # the answer is the error, whatever the others give
        if isinstance(error, Refused):
            return error
        key = requests[0].key
        if self._example_key is not None and key != self._example_key:
            shape, example = (show_key(each) for each in (key, self._example_key))
            return WrongInput(f"the input is {shape}, the example {example}: {error}")
        _log.error("%s has failed: %r", self.name, error, exc_info=error)
        return error

    def _answered(self, status: int, came_ns: int, read_ns: int, request: Request | None) -> None:
        now_ns = perf_counter_ns()
        self.metrics.answered(status, (now_ns - came_ns) / 1e9)
        moments = (now_ns, 0, 0) if request is None else _moments(request)
        batch = 0 if request is None else request.batch
        self._past.requests.append(Answered(came_ns, read_ns, *moments, now_ns, status, batch))

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
