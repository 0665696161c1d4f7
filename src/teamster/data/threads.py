# SPDX-License-Identifier: BSD-3-Clause
"""Batches that threads of this process fill together: rows of the oldest first.

::

    begin(indices) --> a task for some rows each --> thread: samples into their places
                                                     the last one of a batch collates it

Random numbers of a program are those of all its threads. So one thread reads the first samples
while the consumer waits; if they draw any, the consumer reads the others.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from time import perf_counter, thread_time
from typing import Any

from teamster.data.calm import Calm
from teamster.data.feeding import Inline, NotInTime, OpenBatch, Settled, made_of
from teamster.data.fetch import Fetch, Made, join
from teamster.data.rows import RowsPerTask
from teamster.data.sampling import Seed
from teamster.data.witness import slow_among, stacks_of
from teamster.data.worker_info import enter_thread, is_entered
from teamster.spine.workers.worker_info import current_worker
from teamster.tasks.monitor.registry import do_not_finish
from teamster.tasks.pool import Pool

_LOOKED_AT = 4  # samples


class ThreadFeed:
    """Fills batches by threads.

    Args:
        fetch: of the dataset.
        workers: how many threads.
        ahead: how many batches may be open.
        base_seed: worker i has the seed `base_seed` + i, as in torch's loader.
        worker_init_fn: called in each with its number, or None.

    Example:
        >>> feed = ThreadFeed(Fetch([3, 4, 5], list, True), 2, 2)
        >>> feed.begin([2, 0], Seed(0)).result(10.0).value
        [5, 3]
        >>> feed.close()
    """

    is_up = True

    def __init__(
        self,
        fetch: Fetch,
        workers: int,
        ahead: int,
        *,
        base_seed: int = 0,
        worker_init_fn: Callable[[int], object] | None = None,
    ) -> None:
        self.ahead = ahead
        self.warm_up = 2
        self.fetch = fetch
        self.rows = RowsPerTask(workers)
        self._calm = Calm(workers)
        self._workers = workers
        self._base_seed = base_seed
        self._init = worker_init_fn
        self._looked_at = False
        self._pool = Pool("thread", workers=workers)
        do_not_finish(self._pool)

    def is_current(self) -> bool:
        """They have the dataset itself."""
        return True

    def begin(self, indices: Any, seed: Seed) -> OpenBatch:
        """See `Feed.begin`."""
        if self.fetch.draws:
            return Inline(self.fetch).begin(indices, seed)
        if not self._looked_at:
            self._looked_at = True
            return self._first(indices, seed)
        return self._batch(indices, seed.batch, urgent=not seed.batch)

    def _batch(
        self, indices: Any, number: int, looked: Made | None = None, *, urgent: bool = True
    ) -> ThreadBatch:
        size = len(indices) if self.fetch.by_rows else 1
        step = self.rows.of(size, urgent=urgent) if self.fetch.by_rows else 1
        begun = looked.samples if looked is not None else 0
        cuts = range(begun, size, step) if size > begun else range(1)
        batch = ThreadBatch(self, indices, number, len(cuts), looked)
        for first in cuts:
            self._pool.submit(batch.fill, first, min(first + step, size))
        return batch

    def _first(self, indices: Any, seed: Seed) -> OpenBatch:
        """One thread reads some of it, or all, and sees whether numbers are drawn.

        The consumer waits: what is seeded meanwhile is put back before it goes on.
        """
        by_rows = self.fetch.by_rows
        looked = made_of(self._pool.submit(self._look, indices, seed).result)
        if not by_rows or self.fetch.draws or not looked.is_made:
            _warn_of(self.fetch.draws)
            return self._finished(looked, indices, seed) if by_rows else looked
        made = looked.result(None)
        return (
            self._batch(indices, seed.batch, made)
            if len(indices) > made.samples
            else made_of(lambda: self.fetch.collate(made, seed))
        )

    def _look(self, indices: Any, seed: Seed) -> Made:
        """In a worker."""
        self.enter()
        if not self.fetch.by_rows:
            return self.fetch.whole(indices, seed)
        return self.fetch.samples(indices[:_LOOKED_AT], seed)

    def _finished(self, looked: Settled, indices: Any, seed: Seed) -> OpenBatch:
        """The consumer reads the rest."""
        if not looked.is_made:
            return looked
        return made_of(lambda: self.fetch.finish(looked.result(None), indices, seed))

    def enter(self) -> None:
        """In a worker: have a number, before the first task."""
        if not is_entered():
            worker = current_worker()
            number = worker.index if worker is not None else 0
            seed = self._base_seed + number
            enter_thread(number, self._workers, seed, self.fetch.dataset)
            if self._init is not None:
                self._init(number)

    def waited(self, seconds: float) -> None:
        """See `Feed.waited`."""
        self._calm.note(seconds, self.rows.busy)

    def pause(self) -> None:
        """See `Feed.pause`."""
        self._calm.close()

    def memory_bytes(self) -> int:
        """They are part of this process."""
        return 0

    def close(self) -> None:
        """See `Feed.close`."""
        self._calm.close()
        self._pool.terminate()


def _warn_of(draws: str) -> None:
    if draws:
        warnings.warn(
            f"samples draw random numbers from `{draws}`, which all threads share: the consumer "
            "reads them itself; workers='process' reads them beside each other",
            stacklevel=2,
        )


class ThreadBatch:
    """A batch that several threads fill.

    Args:
        feed: it has the dataset.
        indices: of the batch.
        number: its place in the epoch.
        tasks: how many fill it.
        looked: what one thread has read of it before, at its front.
    """

    def __init__(
        self, feed: ThreadFeed, indices: Any, number: int, tasks: int, looked: Made | None = None
    ) -> None:
        self._number = number
        self._feed = feed
        self._indices = indices
        # By the first row of each
        self._parts: dict[int, Made] = {} if looked is None else {-1: looked}
        self._lock = threading.Lock()
        self._left = tasks
        self._failed: tuple[int, BaseException] | None = None  # of the first row
        self._settled = Settled(None)
        self._done = threading.Event()

    @property
    def ready(self) -> bool:
        """See `OpenBatch.ready`."""
        return self._done.is_set()

    def wait(self, seconds: float) -> None:
        """See `OpenBatch.wait`."""
        self._done.wait(seconds)

    def fill(self, first: int, stop: int) -> None:
        """Read rows; the last task of a batch collates it.

        Args:
            first: row.
            stop: the one behind the last.
        """
        feed, part = self._feed, None
        try:
            feed.enter()
            if feed.fetch.by_rows:
                began, cpu = perf_counter(), thread_time()
                part = feed.fetch.samples(self._indices[first:stop], None, self._number)
                feed.rows.learn(stop - first, perf_counter() - began, thread_time() - cpu)
        except BaseException as error:
            with self._lock:
                if self._failed is None or first < self._failed[0]:
                    self._failed = first, error
        with self._lock:
            if part is not None:
                self._parts[first] = part
            self._left -= 1
            last = not self._left
        if last:
            self._finish()

    def _finish(self) -> None:
        failed, self._failed = self._failed, None
        try:
            self._settled = Settled(None, failed[1]) if failed is not None else self._collated()
        except BaseException as error:
            self._settled = Settled(None, error)
        self._parts = {}
        self._done.set()

    def _collated(self) -> Settled:
        fetch = self._feed.fetch
        if not fetch.by_rows:
            return Settled(fetch.whole(self._indices, None))
        parts = (part for _, part in sorted(self._parts.items()))
        return Settled(fetch.collate(join(parts), None, self._number))

    def result(self, timeout: float | None) -> Made:
        """See `OpenBatch.result`."""
        if not self._done.wait(timeout):
            raise NotInTime(self._slow())
        return self._settled.result(None)

    def _slow(self) -> str:
        """What this batch waits for, and where that is."""
        return slow_among(stacks_of(self._feed.fetch.now_read()), self._indices)
