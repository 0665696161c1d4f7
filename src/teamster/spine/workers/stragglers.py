# SPDX-License-Identifier: BSD-3-Clause
"""The clock of a team.

It looks for items that run too long, workers that sit on items that others could run, and results
that wait in a log.
"""

from __future__ import annotations

from time import perf_counter_ns

from teamster.errors import TaskTimeout, WorkerStartError
from teamster.spine.workers.dispatcher import Dispatcher
from teamster.spine.workers.handle import Ready, WorkerHandle
from teamster.spine.workers.job import Job
from teamster.spine.workers.reports import Reports
from teamster.spine.workers.scoreboard import SETTLE_NS

_TIMES_LONGER = 3  # than usual: an item that is stuck
_TIMES_SILENT = 5  # as long, where no caller waits for single results
# For each worker, until the next look: a team of 200 would else look at all of them at each of
# their reports
_LOOK_NS = 5_000
_SOON_NS = 2_000_000  # the shortest sleep between two looks


class Stragglers:
    """Looks at a team's busy workers when its leader is about to sleep; its lock is held."""

    def __init__(self, dispatcher: Dispatcher, reports: Reports) -> None:
        self._dispatcher = dispatcher
        self._reports = reports
        self._due_ns = 0

    def look(self) -> float | None:
        """Do what is due.

        Returns:
            Seconds until the next look is needed, None when only an event can change anything.
        """
        dispatcher, now = self._dispatcher, perf_counter_ns()
        if now < self._due_ns:
            return (self._due_ns - now) / 1e9
        self._due_ns = now + _LOOK_NS * len(dispatcher.workers)
        next_ns: list[int] = []
        hungry = not dispatcher.queue and self._any_idle()
        for worker in list(dispatcher.workers):
            worker.return_memory()
            if not worker.outstanding or worker.killed_for is not None:
                continue
            if worker.reclaimed_ns:
                next_ns.append(self._settle(worker))
            self._check_timeout(worker, now, next_ns)
            running = worker.running()
            if running is not None and running[1] > 1:
                # It unpickles the batch, or runs a block: the next look may see it at one item
                next_ns.append(_SOON_NS)
            holds_more = worker.frontier() < worker.next_number
            if (
                holds_more
                and hungry
                and not worker.reclaimed_ns
                and self._is_stuck(worker, now, next_ns)
            ):
                self.reclaim(worker)
                next_ns.append(SETTLE_NS)
            if holds_more or worker.unsent():
                self._salvage(worker, now, next_ns)
        if dispatcher.queue:
            dispatcher.dispatch()
        return min(next_ns) / 1e9 if next_ns else None

    def cancel(self, job: Job, *, kill: bool) -> None:
        """Start no more items of `job`; end the workers that run one, or take the rest back."""
        job.cancelled = True
        self._dispatcher.drop(job)
        for worker in self._dispatcher.workers:
            if not any(batch.job is job for batch in worker.outstanding):
                continue
            if kill:
                worker.killed_for = (0, None)
                worker.kill()
            else:
                self.reclaim(worker)

    def _any_idle(self) -> bool:
        dispatcher = self._dispatcher
        return len(dispatcher.workers) < dispatcher.count or any(
            not worker.outstanding for worker in dispatcher.workers
        )

    def _is_stuck(self, worker: WorkerHandle, now: int, next_ns: list[int]) -> bool:
        running = worker.running()
        usual = worker.outstanding[0].job.item_ns
        patience = max(self._dispatcher.backend.stuck_ns, int(_TIMES_LONGER * usual))
        since = running[2] if running else 0
        if since and now - since > patience:
            return True
        next_ns.append(max(_SOON_NS, patience - (now - since) if since else patience))
        return False

    def reclaim(self, worker: WorkerHandle) -> None:
        """Ask a worker for the items that it has not started."""
        if worker.reclaimed_ns:
            return
        worker.reclaimed_from = worker.frontier()
        worker.reclaimed_ns = perf_counter_ns()
        worker.reclaim(worker.reclaimed_from)

    def _settle(self, worker: WorkerHandle) -> int:
        """When that is certain, hand what it brought to others; returns ns until the next look."""
        if worker.taken_back:
            return self._dispatcher.backend.silent_ns
        if not worker.settled():
            return SETTLE_NS
        worker.taken_back = max(worker.reclaimed_from, worker.frontier())
        for batch in worker.outstanding:
            start = max(0, worker.taken_back - batch.number)
            if start < batch.size and not batch.job.cancelled:
                self._dispatcher.queue.append(batch.piece(start, batch.size))
        return self._dispatcher.backend.silent_ns

    def _check_timeout(self, worker: WorkerHandle, now: int, next_ns: list[int]) -> None:
        running = worker.running()
        for batch in worker.outstanding:
            limit_ns = batch.job.timeout_ns
            if limit_ns is None:
                continue
            if since := worker.initialising_ns():
                next_ns.append(max(_SOON_NS, limit_ns - (now - since)))
                if now - since >= limit_ns:
                    self._end_start(worker, limit_ns)
            elif running is None or running[1] > 1 or not running[2]:
                next_ns.append(max(_SOON_NS, limit_ns))
            elif not batch.number <= running[0] < batch.number + batch.size:
                continue
            elif now - running[2] < limit_ns:
                next_ns.append(max(_SOON_NS, limit_ns - (now - running[2])))
            else:
                self._dispatcher.expire(
                    worker,
                    running[0],
                    self._timeout_error(worker, batch.first, running[0] - batch.number, limit_ns),
                )
            return

    def _end_start(self, worker: WorkerHandle, limit_ns: int) -> None:
        """Its initializer takes longer than an item may.

        The calls fail as they do when it raises.
        """
        error = WorkerStartError(
            f"the initializer of worker {worker.index} ran for more than {limit_ns / 1e9:g} s, as "
            "no item may, and was ended; raise timeout= if it needs longer"
        )
        self._reports.handle_all([Ready(worker, error)])
        worker.kill()

    def _timeout_error(
        self, worker: WorkerHandle, first: int, offset: int, limit_ns: int
    ) -> TaskTimeout:
        index = first + offset if first >= 0 else -1
        what = f"item {index}" if index >= 0 else "a submitted call"
        return TaskTimeout(
            f"{what} ran for more than {limit_ns / 1e9:g} s in worker {worker.index}, which was "
            "killed and replaced; raise timeout= if the item needs longer",
            index=index,
            seconds=limit_ns / 1e9,
            worker=worker.index,
        )

    def _salvage(self, worker: WorkerHandle, now: int, next_ns: list[int]) -> None:
        """Results in the log of a silent worker are good.

        Deliver them before the item that it runs is over.
        """
        silent = now - worker.last_heard_ns
        most = self._dispatcher.backend.silent_ns
        if not any(batch.job.spec.low_latency for batch in worker.outstanding):
            most *= _TIMES_SILENT
        if silent >= most:
            self._reports.handle_all(worker.salvage())
            silent = 0
        next_ns.append(max(_SOON_NS, most - silent))
