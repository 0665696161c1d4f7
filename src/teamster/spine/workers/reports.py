# SPDX-License-Identifier: BSD-3-Clause
"""What a team makes of its backend's events: results to their jobs, batches and deaths to their consequences."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import get_ident
from time import perf_counter_ns

from teamster.errors import StartMethodRefused, TaskError, WorkerStartError, annotate
from teamster.spine.trace.report import Ledger
from teamster.spine.trace.spans import mark
from teamster.spine.workers.backend import Backend
from teamster.spine.workers.batch import Batch
from teamster.spine.workers.calls import Backlog, Outcomes
from teamster.spine.workers.handle import BatchDone, BatchResults, BatchUnreadable, Died, Event, Ready, WorkerHandle
from teamster.spine.workers.job import Job
from teamster.spine.workers.recovery import judge

_MOST_START_FAILURES = 3


class Reports:
    """The half of a team that takes reports; every method is called with the team's lock held."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.workers: list[WorkerHandle] = []
        self.queue: deque[Batch | Backlog] = deque()
        self.jobs: set[Job] = set()
        self.outcomes: Outcomes = deque()  # of calls, to be told without the lock
        self.ledger = Ledger(backend.kind)
        self.closed = False
        self._start_failures = 0
        self.start_error: BaseException | None = None  # of the worker that came up last, or did not
        self._handler = 0  # the thread that handles an event, with the lock held

    @property
    def has_unread_ends(self) -> bool:
        """Whether all results of a batch are there, and what its worker says of its end is not."""
        return any(batch.done == batch.size for worker in self.workers for batch in worker.outstanding)

    @contextmanager
    def _calling_back(self) -> Iterator[None]:
        """What is called in here may use the team, but not wait for it: see `Team.handled_here`."""
        before, self._handler = self._handler, get_ident()
        try:
            yield
        finally:
            self._handler = before

    def handle_all(self, events: Iterable[Event]) -> None:
        """Take events of the backend. A map's progress is told in here: what it calls may use the team, but not wait for it."""
        with self._calling_back():
            for event in events:
                self.handle(event)

    def handle(self, event: Event) -> None:
        """Take one event of the backend."""
        worker = event.worker
        worker.last_heard_ns = perf_counter_ns()
        if isinstance(event, BatchResults):
            self._keep(event)
        elif isinstance(event, BatchDone):
            self._finish_batch(worker, event)
        elif isinstance(event, Ready):
            self._greet(worker, event)
        elif isinstance(event, BatchUnreadable):
            batch = worker.outstanding.popleft()
            self._end_reclaim(worker)
            self._refuse(batch, event.error)
        else:
            # Not before, and under the lock: a test had one thread look at the scoreboard of a worker whose end another had read.
            self._bury(worker, event)
            worker.release()

    def _keep(self, event: BatchResults) -> None:
        batch = _batch_of(event.worker, event.number)
        if batch is None:
            return
        offset, values = event.number - batch.number, event.values
        if not offset <= batch.done < offset + len(values):
            # Behind: rescued from the log before. Ahead: the log was read before the message that came earlier, which brings it
            # again. (A test hung: the first item was on its way in a message, the log began with the second, and the first was
            # taken for a duplicate.)
            return
        if offset < batch.done:  # the first of them were rescued before
            offset, values = batch.done, values[batch.done - offset :]
        batch.done = offset + len(values)
        if event.error is not None:
            if batch.job.cancelled or not batch.job.on_doubted(batch.first + offset, batch.items[offset], event.error):
                self._tell_error(batch, offset, event.error)
        elif not batch.job.cancelled:
            self.ledger.items += len(values)
            batch.take_values(offset, values)

    def _tell_error(self, batch: Batch, offset: int, error: BaseException) -> None:
        if batch.job.cancelled:
            return
        self.ledger.items += 1
        self.ledger.failures += 1
        if isinstance(error, TaskError) and error.index == -1 and batch.first >= 0:  # no other error's attributes are ours to write
            error.index = batch.first + offset
        batch.take_error(offset, error)

    def _finish_batch(self, worker: WorkerHandle, event: BatchDone) -> None:
        batch = worker.outstanding.popleft()
        worker.busy_ns += event.run_ns
        worker.items += event.ran
        self.ledger.note(worker.index, event.ran, event.run_ns, event.ended_ns)
        if event.ran:
            batch.job.observe(event)
        if event.ran < batch.size and not batch.job.cancelled:
            end = min(batch.size, max(0, worker.taken_back - batch.number)) if worker.taken_back else batch.size
            if event.ran < end:
                self.queue.appendleft(batch.piece(event.ran, end))
        self._end_reclaim(worker)
        if worker.retiring and not worker.outstanding and worker in self.workers:  # a team that has ended has none
            self.workers.remove(worker)
            worker.stop()

    def _end_reclaim(self, worker: WorkerHandle) -> None:
        if worker.reclaimed_ns and not worker.outstanding:
            worker.resume()
            worker.reclaimed_ns = worker.taken_back = 0

    def _greet(self, worker: WorkerHandle, event: Ready) -> None:
        worker.ready = True
        self._start_failures = 0
        self.start_error = event.error
        if event.error is not None:
            annotate(event.error, f"raised by the initializer of worker {worker.index}")
            self._fail_all(event.error)
            if worker in self.workers:
                self.workers.remove(worker)
            worker.killed_for = (0, None)
            worker.stop()

    def _fail_all(self, error: BaseException) -> None:
        jobs, self.jobs = self.jobs, set()
        for batch in itertools.chain(self.queue, *(worker.outstanding for worker in self.workers)):
            batch.abandon(error)
        self.queue.clear()
        for job in jobs:
            job.cancelled = True
            self.backend.forget(job.spec)
            job.on_failure(error)

    def _bury(self, worker: WorkerHandle, died: Died) -> None:
        expected = worker not in self.workers
        if not expected:
            self.workers.remove(worker)
        if expected or self.closed:
            return
        verdict = judge(worker, died)
        worker.outstanding.clear()
        who = f"{self.backend.kind} {worker.index}"
        mark(f"{who} {'died' if worker.killed_for is None else 'was ended'}", who)
        self.queue.extendleft(reversed(verdict.again))
        if worker.killed_for is None:
            self.ledger.deaths += 1
            if not worker.ready and died.running is None:
                self.start_error = died.describe(-1, 0)
                self._count_start_failure(died)
        self.ledger.retries += verdict.retried
        for batch, offset, error in verdict.errors:
            self._tell_error(batch, offset, error)

    def _count_start_failure(self, died: Died) -> None:
        if isinstance(self.start_error, StartMethodRefused | WorkerStartError):  # there is nothing to try again
            self._fail_all(self.start_error)
            return
        self._start_failures += 1
        if self._start_failures >= _MOST_START_FAILURES:
            self._start_failures = 0
            reason = died.describe(-1, 0)
            dead = f"{_MOST_START_FAILURES} workers in a row died before they were ready, and no more are started"
            self._fail_all(WorkerStartError(f"{dead}. The last one: {reason}"))

    def _refuse(self, batch: Batch, error: BaseException) -> None:
        """A batch that cannot be handed or read: find the items that are to blame by handing each alone."""
        if batch.size > 1:
            self.queue.extendleft(batch.piece(at, at + 1) for at in reversed(range(batch.size)))
        elif batch.job.cancelled or not batch.job.on_refused(batch.first, batch.items[0], error):
            self._tell_error(batch, 0, error)

    def _drop(self, job: Job) -> None:
        self.jobs.discard(job)
        if any(batch.job is job for batch in self.queue):
            self.queue = deque(batch for batch in self.queue if batch.job is not job)
        self.backend.forget(job.spec)


def _batch_of(worker: WorkerHandle, number: int) -> Batch | None:
    for batch in worker.outstanding:
        if batch.number <= number < batch.number + batch.size:
            return batch
    return None
