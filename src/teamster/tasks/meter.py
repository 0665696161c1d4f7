# SPDX-License-Identifier: BSD-3-Clause
"""How fast the workers of a job are, read from what their batches took.

::

    processes, at first    n * items / busy time of the n workers, since their results come seldom
    threads, long items    the same, once each had an item
    else                   items / time, over 40 ms, then over windows of 0.2 s: what waits for the caller shows, too
"""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter

from teamster.spine.plan.plan import Evidence
from teamster.spine.workers.job import Job

_TRIAL_NS = 20_000_000
_TRIAL_S = 0.04
_WINDOW_S = 0.2
_BATCHES = 3  # of each worker, in a window
_SATURATED = 0.7


class Meter:
    """Reads the rate of `workers` at one job."""

    def __init__(self, job: Job, workers: int, kind: str, *, lazy: bool) -> None:
        self._job = job
        self._workers = workers
        self._kind = kind
        self._lazy = lazy  # then the consumer's pauses are in the time, too
        self._warm = self._tried = False
        self._batches = self._ran = self._run_ns = self._cpu_ns = 0  # at the begin of the window
        self._since = perf_counter()
        self.item_s = 0.0  # seconds an item lately, in the workers
        self._cpu_s = 0.0  # of processor time

    def read(self) -> float | None:
        """Items a second, when there is something new to say."""
        job = self._job
        if job.batches < self._workers:
            return None
        dear = job.run_ns > _TRIAL_NS * job.batches
        if not self._warm:
            self._warm = True
            if not dear:  # the first batches pay for imports and caches; long items are too dear for that
                self._begin()
        elapsed, batches = perf_counter() - self._since, job.batches - self._batches
        busy = self._lazy or (dear and not self._tried) or (self._kind == "process" and elapsed < _WINDOW_S)
        if self._tried and (elapsed < _WINDOW_S or batches < _BATCHES * self._workers):
            return None
        if not self._tried and not dear and elapsed < _TRIAL_S:
            return None
        if batches < self._workers:
            return None
        rate = self._note(0.0 if busy else elapsed)
        if self._tried or not busy:
            self._begin()
        self._tried = True
        return rate

    def _begin(self) -> None:
        job = self._job
        self._batches, self._ran, self._run_ns, self._cpu_ns = job.batches, job.ran, job.run_ns, job.cpu_ns
        self._since = perf_counter()

    def _note(self, elapsed: float) -> float:
        ran = self._job.ran - self._ran
        self.item_s = (self._job.run_ns - self._run_ns) / ran / 1e9
        self._cpu_s = (self._job.cpu_ns - self._cpu_ns) / ran / 1e9
        return ran / elapsed if elapsed else self._workers / self.item_s

    def evidence(self, before: Evidence, cores: int) -> Evidence:
        """What the items are like now, seen from the workers; what cannot be seen there is as it was."""
        used = self._workers * self._cpu_s / self.item_s  # processors
        crowded = used > _SATURATED * (1 if self._kind == "thread" else cores) and self._workers > used
        wall_s = (
            min(self._cpu_s, self.item_s) if crowded else self.item_s
        )  # workers that wait for each other do not wait for anything else
        return replace(before, items=self._job.ran, wall_s=wall_s, cpu_s=self._cpu_s, all_cpu_s=self._cpu_s, gil=None)
