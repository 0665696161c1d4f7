# SPDX-License-Identifier: BSD-3-Clause
"""Which requests are computed when, by how many replicas; all of it in the event loop.

::

    submit --refused at once, where the deadline cannot be met--> Overloaded
       |
    Waiting (earliest deadline first) --pump--> idle replica --done--> settle, pump
                                         |
                                         +-- held for a moment, when those that were in flight of
                                             late are likely to come, and a batch of all is cheaper

A batch is what there is when a replica is idle: no work waits for a batch to be full. The one
exception is the moment above, of 0.7 ms and a tenth of a single request's time at most.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from time import perf_counter_ns
from typing import Protocol

from teamster.serve.choosing import Way
from teamster.serve.computing import RequestBatch
from teamster.serve.cost import CostModel
from teamster.serve.errors import ClientGone, DeadlineMissed, Overloaded
from teamster.serve.request import Request
from teamster.serve.waiting import Waiting
from teamster.spine.plan.plan import Candidate, Plan
from teamster.units import show_seconds

_MOST_HOLD_S = 0.0007  # eight clients in a loop are all there then
_HOLD_SHARE = 0.1  # of what a single request takes
_FALL = 0.01  # of the largest number in flight of late, with each batch
_MISSED = 0.1  # of it, when it was waited for in vain
_SAFETY = 1.1  # times the predicted wait
_PERIOD = 1024  # batches between two choices of how many replicas are used
_FIRST = 64  # of them, after which the first choice is made
_TRIED = 8  # batches, with another number of replicas
_KINDS = {
    "thread": "a thread each, which share the weights",
    "serial": "the event loop computes: to hand a request on would take longer",
    "process": "a process each, with weights and a lock of its own",
}
_SWEEP_S = 0.05  # between two looks for requests whose clients have gone


class Replica(Protocol):
    """What computes a batch, and calls `Scheduler.done`.

    Attributes:
        number: of it, for people.
    """

    number: int

    def run(self, batch: RequestBatch) -> None:
        """Compute a batch."""


class Scheduler:
    """Hands requests to replicas.

    Args:
        most: rows of a batch.
        limit: requests that may wait.
        count: of replicas, that `use` will be told.

    Attributes:
        most: as above; may be set before the first request.
        kind: of the replicas: "thread", "process" or "serial".
        waiting: the queue.
        in_flight: requests that wait or are computed.
        holds: how many batches were held back for a moment.
    """

    def __init__(self, most: int, limit: int, count: int) -> None:
        self.waiting = Waiting()
        self.in_flight = self.holds = 0
        self.most, self._limit = most, limit
        self._cost = CostModel()
        self._members: set[Replica] = set()
        self._idle: list[Replica] = []
        self._busy: dict[Replica, tuple[float, float]] = {}  # when it began, what it should take
        self.kind = "thread"
        self._candidates: tuple[Candidate, ...] = ()
        self._count = self._worth = count  # replicas; those that are used at a time
        self._batches = 0
        self._peak = 0.0  # of requests in flight, of late
        self._hold: asyncio.TimerHandle | None = None
        self._held_since_ns = 0  # the next batch, where it is held back
        self._sweep: asyncio.TimerHandle | None = None
        self._empty: asyncio.Event | None = None
        self._number = 0  # of the last batch
        self.on_batch: Callable[[Replica, RequestBatch], None] = lambda replica, batch: None

    def use(self, way: Way, candidates: tuple[Candidate, ...] = ()) -> None:
        """These replicas compute from now on.

        Args:
            way: they, and what is known of them.
            candidates: all that was tried, for the plan.
        """
        self._members = set(way.replicas)
        self._idle = list(way.replicas)
        self._count = self._worth = len(self._idle)
        self.kind, self._cost, self.most = way.kind, way.cost, way.most
        self._candidates = candidates
        if way.cost.is_known:
            self._worth = way.cost.replicas_worth(self._count, way.most)
        self.pump()

    # --- requests ---------------------------------------------------------------------------------

    def submit(self, request: Request) -> None:
        """Have a request computed; its `settle` is called, unless this raises.

        Raises:
            Overloaded: its deadline cannot be met, or too many wait.
        """
        if len(self.waiting) >= self._limit:
            raise Overloaded(self.predicted_wait_s(), f"{self._limit} requests wait already")
        if request.deadline_ns is not None:
            self._check_time(request, request.deadline_ns)
        self.in_flight += 1
        self._peak = max(self._peak, float(self.in_flight))
        self.waiting.add(request)
        if self._idle:
            self.pump()
        elif self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(_SWEEP_S, self._drop_gone)

    def _check_time(self, request: Request, deadline_ns: int) -> None:
        left_s = (deadline_ns - perf_counter_ns()) / 1e9
        needs_s = self.predicted_wait_s()
        needs_s += self._cost.predict(request.rows, max(1, len(self._busy)))
        if needs_s * _SAFETY > left_s:
            raise Overloaded(
                max(0.0, needs_s - left_s),
                f"its answer would take {needs_s * 1e3:.0f} ms, and it has "
                f"{max(0.0, left_s) * 1e3:.0f}",
            )

    def predicted_wait_s(self) -> float:
        """Until a request that comes now is begun."""
        if not self._cost.is_known or (self._idle and not self.waiting.rows):
            return 0.0
        now, count = perf_counter_ns() / 1e9, self._worth
        ends = [] if self._idle else [began + takes for began, takes in self._busy.values()]
        running = max(0.0, min(ends, default=now) - now)
        batches = math.ceil(self.waiting.rows / self.most)
        each = self._cost.predict(min(self.waiting.rows, self.most) or 1, count)
        return running + batches * each / count

    def _drop_gone(self) -> None:
        self._sweep = None
        for request in self.waiting:
            if request.watch is not None:
                watch, request.watch = request.watch, None
                _watches.add(task := asyncio.ensure_future(_gone(request, watch)))
                task.add_done_callback(_watches.discard)
        before = len(self.waiting)
        self.waiting.drop_gone()
        self._leave(before - len(self.waiting))
        if len(self.waiting):
            self._sweep = asyncio.get_running_loop().call_later(_SWEEP_S, self._drop_gone)

    # --- batches ----------------------------------------------------------------------------------

    def pump(self) -> None:
        """Give idle replicas what waits."""
        while self._idle and self.waiting.rows and len(self._busy) < self._worth:
            if self._holds():
                return
            self._run_next()

    def _run_next(self) -> None:
        taken = self._still_wanted(self.waiting.take(self.most))
        if not taken or not self._idle:
            return
        replica = self._idle.pop()
        rows, busy = sum(request.rows for request in taken), len(self._busy) + 1
        now_ns = perf_counter_ns()
        self._busy[replica] = now_ns / 1e9, self._cost.predict(rows, busy)
        batch = RequestBatch(taken, rows, busy)
        self._number = batch.number = self._number + 1
        for request in taken:
            request.batch = batch.number
        if self._held_since_ns:
            batch.held_ns, self._held_since_ns = now_ns - self._held_since_ns, 0
        replica.run(batch)

    def _still_wanted(self, taken: list[Request]) -> list[Request]:
        now = perf_counter_ns()
        kept = []
        for request in taken:
            if request.is_gone:
                self._leave(1)
            elif request.deadline_ns is not None and request.deadline_ns < now:
                self._leave(1)
                request.settle(DeadlineMissed("its deadline has passed while it waited"))
            else:
                kept.append(request)
        return kept

    def _holds(self) -> bool:
        """Whether the next batch waits for those that are likely to come."""
        rows = self.waiting.next_rows()
        missing = min(round(self._peak), self.most) - self.in_flight
        if missing <= 0 or rows >= self.most or not self._cost.is_known:
            self._cancel_hold()  # all are there
            return False
        if self._hold is not None:
            return True
        apart = self._cost.predict(rows) + self._cost.predict(missing)
        delay = min(_MOST_HOLD_S, _HOLD_SHARE * self._cost.predict(1))
        if apart - self._cost.predict(rows + missing) <= delay:
            return False
        self.holds += 1
        self._held_since_ns = perf_counter_ns()
        self._hold = asyncio.get_running_loop().call_later(delay, self._end_hold)
        return True

    def _end_hold(self) -> None:
        self._hold = None
        # Those that have not come are not waited for again, until they were there once more
        self._peak = max(float(self.in_flight), (1 - _MISSED) * self._peak)
        self._run_next()
        self.pump()

    def _cancel_hold(self) -> None:
        if self._hold is not None:
            self._hold.cancel()
            self._hold = None

    def done(self, replica: Replica, batch: RequestBatch) -> None:
        """A replica has computed its batch."""
        busy = max(batch.busy, len(self._busy))  # one that began alone may have had company
        del self._busy[replica]
        if batch.whole:
            self._cost.observe(batch.rows, busy, batch.seconds)
        self._peak *= 1 - _FALL
        self._leave(len(batch.requests))
        for request, outcome in zip(batch.requests, batch.outcomes, strict=True):
            if not request.is_gone:
                request.settle(outcome)
        self.on_batch(replica, batch)
        if replica in self._members:  # else others have its place
            self._idle.append(replica)
        if self._count > 1:
            self._choose_replicas(batch.rows)
        self.pump()

    def _choose_replicas(self, rows: int) -> None:
        """As many as pay; now and then another number is tried, for what they do changes."""
        self._batches += 1
        moment = self._batches % _PERIOD
        if moment == _FIRST:
            self._worth = 1 if self._worth == self._count else self._count
        elif moment == _FIRST + _TRIED:
            self._worth = self._cost.replicas_worth(self._count, rows)

    # --- the end ----------------------------------------------------------------------------------

    def _leave(self, count: int) -> None:
        self.in_flight -= count
        if not self.in_flight and self._empty is not None:
            self._empty.set()

    def plan(self) -> Plan:
        """How many replicas are used, and why."""
        if self._worth < self._count:
            why = f"{self._worth} of {self._count} replicas compute as much as all of them"
        else:
            why = _KINDS[self.kind]
        if self._cost.is_known:
            one, many = self._cost.predict(1), self._cost.predict(self.most)
            why += f"; a request takes {show_seconds(one)}"
            if self.most > 1:
                why += f", one of {self.most} in a batch {show_seconds(many / self.most)}"
        return Plan(self.kind, self._worth, why, self._candidates)

    async def drain(self) -> None:
        """Until no request waits or is computed."""
        self._empty = asyncio.Event()
        if self.in_flight:
            await self._empty.wait()


_watches: set[asyncio.Future[None]] = set()  # the loop itself keeps no task alive


async def _gone(request: Request, watch: Callable[[], Awaitable[object]]) -> None:
    await watch()
    request.is_gone = True
    request.settle(ClientGone("its client has gone"))
