# SPDX-License-Identifier: BSD-3-Clause
"""What is queued, which worker holds what, and which gets the next batch.

The dispatcher never waits; what comes back of it is read in reports.py.

::

    queue -dispatch-> _pick: an idle worker, a new one, or one that can hold another -> Backend.send
          <- piece, refuse -- what was not run: taken back, refused, or held by one that died
"""

from __future__ import annotations

import contextvars
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import get_ident
from time import perf_counter_ns
from typing import Any

from teamster.errors import TaskError, WorkerStartError
from teamster.spine.trace.report import Ledger
from teamster.spine.workers.backend import Backend
from teamster.spine.workers.batch import Batch, CallStyle, FunctionSpec
from teamster.spine.workers.calls import Backlog, Call, Outcomes
from teamster.spine.workers.handle import WorkerHandle
from teamster.spine.workers.job import Job

# Items of this size go one at a time: two of them in flight would be memory for nothing
_HUGE_BYTES = 256 << 20
# Items of this size wait in shared memory: its first touch costs more than any hand-over
_LARGE_BYTES = 1 << 20
# Answers that come this seldom are not worth looking for without sleeping
_WORTH_SLEEP_NS = 500_000
_SHORT_NS = 50_000  # shorter ones several at a time: the hand-over costs as much as they do

_identities = itertools.count(1)


class Dispatcher:
    """Workers and what they hold; those methods that do not take the lock themselves want it held.

    Args:
        backend: the kind of worker.
        count: how many there may be.
        max_tasks: items after which a worker is replaced.
        lock: teams that work for the same calls share one.
    """

    def __init__(
        self,
        backend: Backend,
        count: int,
        *,
        max_tasks: int | None = None,
        lock: threading.RLock | None = None,
    ) -> None:
        self.backend = backend
        self.count = count
        self.lock = lock or threading.RLock()
        self.workers: list[WorkerHandle] = []
        self.queue: deque[Batch | Backlog] = deque()
        self.jobs: set[Job] = set()
        self.outcomes: Outcomes = deque()  # of calls, to be told without the lock
        self.ledger = Ledger(backend.kind)
        self.closed = False
        self.start_error: BaseException | None = None  # of the worker that came up last, or did not
        self.handler = 0  # the thread that handles an event, with the lock held
        self._exclusive = False  # a batch runs that wants no other beside it
        self._max_tasks = max_tasks

    def enqueue(self, job: Job, call: Call) -> bool:
        """Queue a single call; whether nothing waits before it, for which there was no room."""
        last = self.queue[-1] if self.queue else None
        if not isinstance(last, Backlog) or last.job is not job:
            self.queue.append(backlog := Backlog(job, self.outcomes))
            self.jobs.add(job)
        else:
            backlog = last
        backlog.calls.append(call)
        return last is None

    # --- what callers ask -------------------------------------------------------------------------

    def room(self, job: Job) -> int:
        """How many batches more would find a worker now.

        For thread workers a few beyond, so that none waits for the caller.
        """
        with self.lock:
            return self.room_for(self._depth(job))

    def room_for(self, depth: int) -> int:
        """The same, where a worker holds so many."""
        room = self.count * depth - len(self.queue)
        if not self.backend.pulls:
            room += self.count
        for worker in self.workers:
            room -= min(depth, len(worker.outstanding))
        return room

    def capacity(self, job: Job) -> int:
        """Batches that all workers together may hold."""
        return self.count * self._depth(job)

    def _depth(self, job: Job) -> int:
        """Batches that one worker may hold."""
        batch_ns = job.batch_ns
        if batch_ns > self.backend.long_ns or job.item_bytes > _HUGE_BYTES:
            return 1
        many = 0 < batch_ns < _SHORT_NS and job.item_bytes < _LARGE_BYTES
        return self.backend.deepest if many else self.backend.depth

    def define(
        self,
        function: Callable[..., Any],
        style: CallStyle,
        *,
        seed: int | None = None,
        one_by_one: bool = False,
        low_latency: bool = False,
    ) -> FunctionSpec:
        """Make a function ready to be handed to workers, with the caller's context.

        Raises:
            Exception: the function does not pickle.
        """
        spec = FunctionSpec(
            function,
            style,
            seed,
            one_by_one or seed is not None,
            low_latency,
            identity=next(_identities),
        )
        self.backend.prepare(spec, contextvars.copy_context())
        return spec

    @property
    def has_unread_ends(self) -> bool:
        """Whether all results of a batch are there, and what its worker says of its end is not."""
        return any(
            batch.done == batch.size for worker in self.workers for batch in worker.outstanding
        )

    def expire(self, worker: WorkerHandle, number: int, error: BaseException) -> None:
        """Kill a worker because of the item that it runs."""
        worker.killed_for = (number, error)
        self.ledger.timeouts += 1
        worker.kill()

    def distrust(self) -> None:
        """Ctrl-C may have struck between the reading of a result and its delivery.

        What is under way starts over elsewhere.
        """
        for worker in self.workers:
            if worker.outstanding and self.backend.can_kill and worker.killed_for is None:
                worker.killed_for = (0, None)
                worker.kill()

    def answers_soon(self) -> bool:
        """Whether the next answer is worth looking for without sleeping."""
        return not any(
            worker.outstanding and worker.outstanding[0].job.batch_ns > _WORTH_SLEEP_NS
            for worker in self.workers
        )

    def note_bytes(self) -> None:
        """Bring the ledger's byte counts up to date."""
        self.ledger.pickled_bytes, self.ledger.arena_bytes = self.backend.bytes_moved()

    # --- the workers that are there ---------------------------------------------------------------

    def is_busy_with(self, job: Job) -> bool:
        """Whether something of `job` is queued or under way."""
        with self.lock:
            batches = itertools.chain(self.queue, *(worker.outstanding for worker in self.workers))
            return any(batch.job is job for batch in batches)

    def start_all(self) -> int:
        """Start the workers that are missing, before there is work; returns how many are ready."""
        with self.lock:
            while (
                len(self.workers) < self.count and not self.closed and self._start_one() is not None
            ):
                pass
            return sum(worker.ready for worker in self.workers)

    def stop_all(self) -> None:
        """Let go of all workers, of the busy ones after what they have.

        The next batch brings others.
        """
        with self.lock:
            self._let_go(list(self.workers))

    def resize(self, count: int) -> None:
        """Have `count` workers from now on."""
        with self.lock:
            self.count = count
            staying = [worker for worker in self.workers if not worker.retiring]
            self._let_go(staying[count:])

    def _let_go(self, workers: list[WorkerHandle]) -> None:
        for worker in workers:
            if worker.outstanding:
                worker.retiring = True
            else:
                self.workers.remove(worker)
                worker.stop()

    # --- handing out ------------------------------------------------------------------------------

    def dispatch(self) -> None:
        """Hand out what can be handed out."""
        handed = False
        while self.queue and not self.closed:
            batch = self.queue[0]
            if batch.job.cancelled:
                self.queue.popleft()
                continue
            worker = self._pick(batch)
            if worker is None:
                break
            taken = self._take()
            if taken is not None:
                self._hand(worker, taken)
                handed = True
        if handed:
            self.backend.flush()

    def _take(self) -> Batch | None:
        """The next batch of the queue; of single calls as many as are worth a message.

        None when all of these were cancelled.
        """
        head = self.queue[0]
        if not isinstance(head, Backlog):
            self.queue.popleft()
            return head
        waiting = len(head.calls) + len(self.queue) - 1
        batch = head.take(head.job.batch_items(waiting, self.count))
        if not head.calls:
            self.queue.popleft()
        return batch

    def _pick(self, batch: Batch | Backlog) -> WorkerHandle | None:
        """An idle worker first, then a new one, then one that can hold a second batch."""
        if (batch.exclusive or self._exclusive) and any(
            worker.outstanding for worker in self.workers
        ):
            return None
        self._exclusive = batch.exclusive
        best: WorkerHandle | None = None
        for worker in self.workers:
            if (
                worker.retiring
                or worker.reclaimed_ns
                or worker.absent
                or worker.killed_for is not None
            ):
                continue
            if not worker.outstanding:
                return worker
            if best is None or len(worker.outstanding) < len(best.outstanding):
                best = worker
        if len(self.workers) < self.count and (new := self._start_one()) is not None:
            return new
        return best if best is not None and len(best.outstanding) < self._depth(batch.job) else None

    def _start_one(self) -> WorkerHandle | None:
        """Start one more worker.

        Returns None where the system gives no more, and then those that are there have to do.
        """
        try:
            worker = self.backend.start(self._free_index(), self.count)
        except (OSError, RuntimeError) as error:
            if self.workers:
                self.count = len(self.workers)
            else:
                advice = "close files, or ask for a higher limit (ulimit -n, ulimit -u)"
                self.fail_all(WorkerStartError(f"no worker can be started: {error}; {advice}"))
            return None
        self.workers.append(worker)
        return worker

    def _free_index(self) -> int:
        taken = {worker.index for worker in self.workers}
        return next(index for index in range(self.count) if index not in taken)

    def _hand(self, worker: WorkerHandle, batch: Batch) -> None:
        if self._max_tasks is not None and batch.size > (left := self._max_tasks - worker.handed):
            self.queue.appendleft(batch.piece(left, batch.size))
            batch = batch.piece(0, left)
        batch.number = worker.next_number
        try:
            self.backend.send(worker, batch)
        except Exception as error:
            with self.calling_back():
                self.refuse(batch, error)
            return
        worker.next_number += batch.size
        worker.handed += batch.size
        worker.outstanding.append(batch)
        worker.last_heard_ns = perf_counter_ns()
        worker.retiring = worker.handed == self._max_tasks
        self.ledger.batches += batch.job.counts

    # --- what becomes of items --------------------------------------------------------------------

    @contextmanager
    def calling_back(self) -> Iterator[None]:
        """What is called in here may use the team, but not wait for it: see `Team.handled_here`."""
        before, self.handler = self.handler, get_ident()
        try:
            yield
        finally:
            self.handler = before

    def refuse(self, batch: Batch, error: BaseException) -> None:
        """Take a batch that cannot be handed or read.

        The items that are to blame are found by handing each alone.
        """
        if batch.size > 1:
            self.queue.extendleft(batch.piece(at, at + 1) for at in reversed(range(batch.size)))
        elif batch.job.cancelled or not batch.job.on_refused(batch.first, batch.items[0], error):
            self.tell_error(batch, 0, error)

    def drop(self, job: Job) -> None:
        """Nothing more of this job is handed out."""
        self.jobs.discard(job)
        if any(batch.job is job for batch in self.queue):
            self.queue = deque(batch for batch in self.queue if batch.job is not job)
        self.backend.forget(job.spec)

    def tell_error(self, batch: Batch, offset: int, error: BaseException) -> None:
        """What one item came to instead of a result."""
        if batch.job.cancelled:
            return
        self.ledger.items += 1
        self.ledger.failures += 1
        if isinstance(error, TaskError) and error.index == -1 and batch.first >= 0:
            # No other error's attributes are ours to write
            error.index = batch.first + offset
        batch.take_error(offset, error)

    def fail_all(self, error: BaseException) -> None:
        """End every call with `error`."""
        jobs, self.jobs = self.jobs, set()
        for batch in itertools.chain(self.queue, *(worker.outstanding for worker in self.workers)):
            batch.abandon(error)
        self.queue.clear()
        for job in jobs:
            job.cancelled = True
            self.backend.forget(job.spec)
            job.on_failure(error)

    def finish(self, job: Job) -> None:
        """Everything of `job` is reported: forget it, and what it was about."""
        with self.lock:
            self.drop(job)
            job.let_go()
            for worker in self.workers:
                for batch in worker.outstanding:  # that it is over was not read yet
                    if batch.job is job:
                        batch.items = ()
