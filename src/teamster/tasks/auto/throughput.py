# SPDX-License-Identifier: BSD-3-Clause
"""How fast the workers of a job are, read from what their batches took.

::

    processes, at first  n * items / busy time of the n workers, since their results come seldom
    threads, long items  the same, once each had an item
    else                 items / time, over 40 ms, then over windows of 0.2 s: what waits for the
                         caller shows, too

Other programs spoil every measurement. The kernel's account of the time that workers were ready to
run and did not (the run delay) tells how much; the rates are those of a machine without the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import perf_counter, process_time_ns

from teamster.machine.gil import GilShare
from teamster.spine.plan.plan import Evidence
from teamster.spine.workers.job import Job

_GROWN_NS = 2_000_000  # of a batch: until then the batches are still growing
_TRIAL_S = 0.04  # shorter, a rate is noise
_WINDOW_S = 0.2  # a rate over less jumps with each message
_BATCHES = 3  # of each worker, in a window
_SATURATED = 0.7  # of one processor: threads that take turns
_WAITS = 0.5  # of the time of an item: then it is one that waits
_MORE = 2.0  # times the processor time: another kind of item
_MOST_CORRECTION = 3.0  # times: more is a machine that cannot be measured on


class Throughput:
    """Reads the rate of `workers` at one job."""

    def __init__(
        self,
        job: Job,
        delivered: Callable[[], int],
        workers: int,
        kind: str,
        cores: int,
        *,
        long_items: bool,
        lazy: bool,
    ) -> None:
        self._job = job
        # Results so far, which threads bring more often than whole batches
        self._delivered = delivered
        self._long_items = long_items  # items are so long that each of the first counts
        self._workers = workers
        self._kind = kind
        self._cores = cores
        self._lazy = lazy  # then the consumer's pauses are in the time, too
        self._warm = self._tried = False
        self._begin()
        self.item_s = 0.0  # seconds an item lately, in the workers, without what others took
        self._cpu_s = 0.0  # of processor time

    def read(self) -> float | None:
        """Items a second, when there is something new to say."""
        if not self._warm and not self._is_warm():
            return None
        elapsed, batches = perf_counter() - self._since, self._job.batches - self._before[0]
        if not self._is_due(elapsed, batches):
            return None
        busy = (
            self._lazy
            or (self._long_items and not self._tried)
            or (self._kind == "process" and elapsed < _WINDOW_S)
        )
        rate = self._note(0.0 if busy else elapsed)
        if self._tried or not busy:
            self._begin()
        self._tried = True
        return rate

    def _is_warm(self) -> bool:
        """Whether the first batches are over, which are small, and pay for imports and caches.

        Long items are too dear for that.
        """
        job = self._job
        if job.batches < self._workers or (
            not self._long_items
            and job.batch_ns < _GROWN_NS
            and perf_counter() - self._since < _TRIAL_S
        ):
            return False
        if not self._long_items:
            self._begin()
        self._warm = True
        return True

    def _is_due(self, elapsed: float, batches: int) -> bool:
        if self._tried:
            return elapsed >= _WINDOW_S and batches >= _BATCHES * self._workers
        return batches >= self._workers and (self._long_items or elapsed >= _TRIAL_S)

    def _begin(self) -> None:
        job = self._job
        self._before = job.batches, job.ran, job.run_ns, job.cpu_ns, job.delay_ns
        self._since, self._own_ns, self._delivered_before = (
            perf_counter(),
            process_time_ns(),
            self._delivered(),
        )

    def _note(self, elapsed: float) -> float:
        job, (_, ran, run_ns, cpu_ns, delay_ns) = self._job, self._before
        ran, run_ns, cpu_ns, delay_ns = (
            job.ran - ran,
            job.run_ns - run_ns,
            job.cpu_ns - cpu_ns,
            job.delay_ns - delay_ns,
        )
        self.item_s = max(run_ns - delay_ns, cpu_ns, 1) / ran / 1e9
        self._cpu_s = cpu_ns / ran / 1e9
        crowd = self._workers > self._cores  # then they delay each other
        if not elapsed:
            return self._workers / (run_ns / ran / 1e9 if crowd else self.item_s)
        own_s = (
            process_time_ns() - self._own_ns + (cpu_ns if self._kind == "process" else 0)
        ) / 1e9
        # What our own threads and workers took from each other is not to be had
        unused = self._cores * elapsed / max(own_s, 1e-9)
        correction = (
            1.0 if crowd else min(run_ns / max(run_ns - delay_ns, 1), unused, _MOST_CORRECTION)
        )
        return max(1, self._delivered() - self._delivered_before) / elapsed * max(1.0, correction)

    def evidence(self, before: Evidence) -> Evidence:
        """What the items are like now, seen from the workers.

        What cannot be seen there is as it was.
        """
        used = self._workers * self._cpu_s / self.item_s  # processors
        crowded = self._kind == "thread" and used > _SATURATED and self._workers > used
        wall_s = self.item_s
        if crowded and before.waiting >= _WAITS and self._cpu_s < _MORE * before.cpu_s:
            wall_s = min(wall_s, before.wall_s)  # they wait as before, and in a crowd
        elif crowded:  # threads that wait for the lock do not wait for anything else
            wall_s = self._cpu_s
        gil = before.gil
        if gil is not None:  # as large a part of the processor time as before
            held = gil.held * before.wall_s / max(before.cpu_s, 1e-9) * self._cpu_s / wall_s
            gil = GilShare(min(1.0, held), gil.error, gil.samples)
        now = replace(before, wall_s=wall_s, cpu_s=self._cpu_s, all_cpu_s=self._cpu_s, gil=gil)
        return replace(
            now, items=self._job.ran, by=f"{self._kind}({self._workers})", took_s=self.item_s
        )
