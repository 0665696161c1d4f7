# SPDX-License-Identifier: BSD-3-Clause
"""What is made of a backend's events.

Results go to their jobs, ends of batches and deaths to their consequences.
"""

from __future__ import annotations

from collections.abc import Iterable
from time import perf_counter_ns

from teamster.errors import StartMethodRefused, WorkerStartError, annotate, first_line
from teamster.spine.trace.spans import mark
from teamster.spine.workers.batch import Batch
from teamster.spine.workers.dispatcher import Dispatcher
from teamster.spine.workers.handle import (
    BatchDone,
    BatchResults,
    BatchUnreadable,
    Died,
    Event,
    Ready,
    WorkerHandle,
)
from teamster.spine.workers.recovery import judge

_MOST_START_FAILURES = 3  # in a row: what ends three will end the fourth


class Reports:
    """Takes the events of one team, with its lock held."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._start_failures = 0

    def handle_all(self, events: Iterable[Event]) -> None:
        """Take events of the backend.

        A map's progress is told in here: what it calls may use the team, but not wait for it.
        """
        with self._dispatcher.calling_back():
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
            self._dispatcher.refuse(batch, event.error)
        else:
            # Not before, and under the lock: a test had one thread look at the scoreboard of a
            # worker after another had read of its end.
            self._bury(worker, event)
            worker.release()

    def _keep(self, event: BatchResults) -> None:
        batch = _batch_of(event.worker, event.number)
        if batch is None:
            return
        offset, values = event.number - batch.number, event.values
        if not offset <= batch.done < offset + len(values):
            # Behind: salvaged from the log before. Ahead: the log was read before the message that
            # came earlier, which brings it again. (A test hung: the first item was on its way in a
            # message, the log began with the second, and the first was taken for a duplicate.)
            return
        if offset < batch.done:  # the first of them were salvaged before
            offset, values = batch.done, values[batch.done - offset :]
        batch.done = offset + len(values)
        if event.error is not None:
            if batch.job.cancelled or not batch.job.on_doubted(
                batch.first + offset, batch.items[offset], event.error
            ):
                self._dispatcher.tell_error(batch, offset, event.error)
        elif not batch.job.cancelled:
            self._dispatcher.ledger.items += len(values) if batch.job.counts else 0
            batch.take_values(offset, values)

    def _finish_batch(self, worker: WorkerHandle, event: BatchDone) -> None:
        batch = worker.outstanding.popleft()
        if batch.job.counts:
            worker.busy_ns += event.run_ns
            worker.items += event.ran
            self._dispatcher.ledger.note(worker.index, event.ran, event.run_ns, event.ended_ns)
        if event.ran:
            batch.job.observe(event)
        if event.ran < (end := worker.end_of(batch)) and not batch.job.cancelled:
            self._dispatcher.queue.appendleft(batch.piece(event.ran, end))
        self._end_reclaim(worker)
        if worker.retiring and not worker.outstanding and worker in self._dispatcher.workers:
            # A team that has ended has none
            self._dispatcher.workers.remove(worker)
            worker.stop()

    def _end_reclaim(self, worker: WorkerHandle) -> None:
        if worker.reclaimed_ns and not worker.outstanding:
            worker.resume()
            worker.reclaimed_ns = worker.taken_back = 0

    def _greet(self, worker: WorkerHandle, event: Ready) -> None:
        worker.ready = True
        self._start_failures = 0
        self._dispatcher.start_error = None
        if event.error is not None:
            # Not itself: once raised it leads to whoever has the pool, which its threads would keep
            self._dispatcher.start_error = RuntimeError(first_line(event.error))
            annotate(event.error, f"raised by the initializer of worker {worker.index}")
            self._dispatcher.fail_all(event.error)
            if worker in self._dispatcher.workers:
                self._dispatcher.workers.remove(worker)
            worker.killed_for = (0, None)
            worker.stop()

    def _bury(self, worker: WorkerHandle, died: Died) -> None:
        expected = worker not in self._dispatcher.workers
        if not expected:
            self._dispatcher.workers.remove(worker)
        if expected or self._dispatcher.closed:
            return
        verdict = judge(worker, died)
        worker.outstanding.clear()
        who = f"{self._dispatcher.backend.kind} {worker.index}"
        mark(f"{who} {'died' if worker.killed_for is None else 'was ended'}", who)
        self._dispatcher.queue.extendleft(reversed(verdict.again))
        if worker.killed_for is None:
            self._dispatcher.ledger.deaths += 1
            if not worker.ready and died.running is None:
                self._dispatcher.start_error = died.describe(-1, 0)
                self._count_start_failure(died)
        self._dispatcher.ledger.retries += verdict.retried
        for batch, offset, error in verdict.errors:
            self._dispatcher.tell_error(batch, offset, error)

    def _count_start_failure(self, died: Died) -> None:
        if isinstance(self._dispatcher.start_error, StartMethodRefused | WorkerStartError):
            # There is nothing to try again
            self._dispatcher.fail_all(self._dispatcher.start_error)
            return
        self._start_failures += 1
        if self._start_failures >= _MOST_START_FAILURES:
            self._start_failures = 0
            reason = died.describe(-1, 0)
            dead = (
                f"{_MOST_START_FAILURES} workers in a row died before they were ready, and no more "
                "are started"
            )
            self._dispatcher.fail_all(WorkerStartError(f"{dead}. The last one: {reason}"))


def _batch_of(worker: WorkerHandle, number: int) -> Batch | None:
    for batch in worker.outstanding:
        if batch.number <= number < batch.number + batch.size:
            return batch
    return None
