# SPDX-License-Identifier: BSD-3-Clause
"""Batches that processes fill together; each process has the dataset, from its start.

::

    begin(indices) --> a task for some rows each --> process: samples into rows of a slot
                          (or collated, by pickle, and merged here; a slot: see slots.py)
                       or one for all of them, where the user collates --> a batch
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from time import perf_counter
from typing import Any

from teamster.data.calm import Calm
from teamster.data.collate import Collated, Placed, concatenated, merge
from teamster.data.feeding import NotInTime
from teamster.data.fetch import NOTHING, Fetch, Made
from teamster.data.reading import enter, is_here, make_part, make_whole
from teamster.data.rows import RowsPerTask
from teamster.data.sampling import Seed
from teamster.data.slots import Lease, Slots
from teamster.data.witness import ask, slow_among
from teamster.errors import WorkerDied, WorkerStartError
from teamster.machine.usage import proportional_bytes
from teamster.spine.plan.safety.fingerprint import checksum
from teamster.spine.workers.library_state import one_moment
from teamster.spine.workers.process.forkserver import the_fork_server
from teamster.tasks.monitor.registry import do_not_finish
from teamster.tasks.monitor.snapshot import worker_pids
from teamster.tasks.pool import Pool

PRELOADED = ("torch", "teamster.data.reading")
"""What processes are forked with: seconds of imports, for all workers at once."""

_LOOK_S = 1.0  # at the dataset, between epochs
_LOOKED_AT = 4  # batches that might have gone by a slot, and did not
_HELD = 2  # slots that the consumer may hold, beside those that are filled


def warm_up() -> None:
    """Have what processes are forked from import torch while the program goes on."""
    with contextlib.suppress(WorkerStartError):  # said when one is wanted
        the_fork_server(PRELOADED).warm_up()


class ProcessFeed:
    """Fills batches by processes.

    Args:
        fetch: of the dataset, which has to pickle.
        workers: how many processes.
        ahead: how many batches may be open.
        base_seed: worker i begins with the random numbers of `base_seed` + i, as in torch's loader.
        worker_init_fn: called in each with its number, or None.
        start_method: of the processes; None for the usual one.
        threads: how many of each process read at a time.
        pinned: whether slots are in pinned memory.

    Attributes:
        pool: the processes.

    Example:
        >>> feed = ProcessFeed(Fetch([3, 4, 5], list, True), 2, 2, base_seed=1)
        >>> feed.begin([2, 0], Seed(0)).result(60.0).value
        [5, 3]
        >>> feed.close()
    """

    def __init__(
        self,
        fetch: Fetch,
        workers: int,
        ahead: int,
        *,
        base_seed: int,
        worker_init_fn: Callable[[int], object] | None = None,
        start_method: Any = None,
        threads: int = 1,
        pinned: bool = False,
    ) -> None:
        self._pinned = pinned
        self.threads = threads
        self.ahead = ahead
        self.warm_up = ahead + _HELD  # some by pickle, and every slot is new once
        self.rows = RowsPerTask(workers * threads)
        self._calm = Calm(workers * threads)
        self.fetch = fetch
        self.pool = Pool(
            "process",
            workers=workers,
            initializer=enter,
            initargs=(fetch, workers, base_seed, worker_init_fn, threads),
            start_method=start_method,
            preload=PRELOADED if start_method in (None, "forkserver") else (),
        )
        do_not_finish(self.pool)
        self._first = self.pool.submit(is_here)
        self._print: tuple[int, int] | None = None  # of the dataset
        self._slots: Slots | None = None
        self._looks = _LOOKED_AT  # at batches that were in no slot

    @property
    def is_up(self) -> bool:
        """See `Feed.is_up`.

        Raises:
            Exception: no worker can have the dataset.
        """
        if not self._first.done():
            return False
        self._first.result()
        return True

    def is_current(self) -> bool:
        """See `Feed.is_current`: by a checksum, where that takes no longer than new processes."""
        before, self._print = self._print, None
        with contextlib.suppress(Exception):
            self._print = checksum(self.fetch.dataset, perf_counter() + _LOOK_S)
        return before is not None and before == self._print

    def waited(self, seconds: float) -> None:
        """See `Feed.waited`."""
        self._calm.note(seconds, self.rows.busy)

    def pause(self) -> None:
        """See `Feed.pause`."""
        self._calm.close()

    def memory_bytes(self) -> int:
        """See `Feed.memory_bytes`."""
        return sum(map(proportional_bytes, worker_pids(self.pool)))

    def await_up(self) -> None:
        """Wait until a worker has the dataset, which no batch is to blame for.

        Raises:
            Exception: none can.
        """
        try:
            self._first.result()
        except Exception:  # it leads back to here: nothing that runs may wait for its collection
            self.close()
            raise

    def begin(self, indices: Any, seed: Seed) -> ProcessBatch:
        """See `Feed.begin`."""
        if not self.fetch.mergeable or not len(indices):
            return ProcessBatch(self, [_Part(self, make_whole, indices, seed)])
        size = len(indices)
        step = self.rows.of(size, urgent=not seed.batch) * self.threads
        slots = self._slots
        lease = slots.take() if slots is not None and size <= slots.rows else None
        cuts = [(first, indices[first : first + step]) for first in range(0, size, step)]
        with one_moment():  # of what the program has set
            parts = [_Part(self, make_part, rows, seed.at(at), lease, at) for at, rows in cuts]
        return ProcessBatch(self, parts, lease)

    def submit(self, make: Callable[..., Made], *arguments: Any) -> Future[Made]:
        """Have some rows read."""
        return self.pool.submit(make, *arguments)

    def look_at(self, batch: Any, rows: int, had_a_slot: bool) -> None:
        """A batch that was in no slot: the next may be, or slots turn out to be of no use."""
        if not self._looks or (not had_a_slot and self._slots and rows <= self._slots.rows):
            return  # the consumer has kept all slots
        self._looks -= 1
        count, pinned = self.ahead + _HELD, self._pinned
        self._slots = Slots.like(batch, rows, count, pinned=pinned) if self._looks else None

    def close(self) -> None:
        """See `Feed.close`."""
        self._calm.close()
        self.pool.terminate()


class _Part:
    """Some rows of a batch, in the hands of a process."""

    def __init__(
        self,
        feed: ProcessFeed,
        make: Callable[..., Made],
        indices: Any,
        seed: Seed,
        lease: Lease | None = None,
        row: int = 0,
    ) -> None:
        self._feed = feed
        self._make = make
        self._indices = indices
        self._seed = seed
        self._lease = lease
        self._row = row
        place = lease.place.at(row) if lease is not None else None
        where = (place,) if self.by_rows else ()
        self.future: Future[Made] | None = feed.submit(make, indices, seed, *where)
        # A slot is in use as long as any process may write to it, whatever became of its batch
        vars(self.future)["lease"] = lease

    @property
    def by_rows(self) -> bool:
        return self._make is make_part

    @property
    def ready(self) -> bool:
        return self.future is None or self.future.done()

    def wait(self, seconds: float) -> None:
        if self.future is not None:
            with contextlib.suppress(FutureTimeout):
                self.future.exception(seconds)

    def made(self, until: float | None, *, again: bool = True) -> list[Made]:
        """What came of it; when its process died, what came of its rows, each by itself."""
        future, self.future = self.future, None  # an error's traceback leads back to here
        assert future is not None
        try:
            made = future.result(None if until is None else max(0.0, until - perf_counter()))
        except FutureTimeout:
            if future.done():  # the user's own
                raise
            told = slow_among(ask(worker_pids(self._feed.pool)), self._indices)
            raise NotInTime(told or f"it waits for samples {self._indices!r:.200}") from None
        except WorkerDied as death:
            if again:
                return self._again(until)
            given_up = self._feed.fetch.give_up(self._indices, death)
            if given_up is None:
                raise
            return [given_up]
        finally:
            del future
        self._feed.rows.learn(made.samples, made.read_s * self._feed.threads, made.cpu_s)
        return [made]

    def _again(self, until: float | None) -> list[Made]:
        apart = self.by_rows and len(self._indices) > 1
        rows = [[index] for index in self._indices] if apart else [self._indices]
        parts = [
            _Part(
                self._feed,
                self._make,
                each,
                self._seed.at(row),
                self._lease,
                self._row + row,
            )
            for row, each in enumerate(rows)
        ]
        return [made for part in parts for made in part.made(until, again=False)]


class ProcessBatch:
    """A batch that several processes fill.

    Args:
        feed: it has the processes.
        parts: some rows each, in order.
        lease: of the slot that they go to; None where there is none.
    """

    def __init__(self, feed: ProcessFeed, parts: list[_Part], lease: Lease | None = None) -> None:
        self._feed = feed
        self._parts = parts
        self._lease = lease

    @property
    def ready(self) -> bool:
        """See `OpenBatch.ready`."""
        return all(part.ready for part in self._parts)

    def wait(self, seconds: float) -> None:
        """See `OpenBatch.wait`."""
        for part in self._parts:
            if not part.ready:
                part.wait(seconds)
                return

    def result(self, timeout: float | None) -> Made:
        """See `OpenBatch.result`."""
        self._feed.await_up()
        until = None if timeout is None else perf_counter() + timeout
        parts, self._parts = self._parts, []
        by_rows = bool(parts) and parts[0].by_rows
        lease, self._lease = self._lease, None
        made: list[Made] = []
        while parts:
            made += parts.pop(0).made(until)
        if not by_rows:
            return made[0]
        joined = Made(
            _put_together(made, lease),
            sum(each.samples for each in made),
            [failure for each in made for failure in each.failures],
        )
        if not all(type(each.value) is Placed for each in made):
            self._feed.look_at(joined.value, joined.samples, lease is not None)
        return joined


def _put_together(made: list[Made], lease: Lease | None) -> Any:
    """The batch of these parts: views of the slot that all are in, or else a copy."""
    values = [each.value for each in made]
    if lease is not None and all(
        type(each) is Placed and each.form == values[0].form for each in values
    ):
        rows = sum(each.samples for each in made)
        return lease.batch(concatenated([each.rest for each in values]), 0, rows)
    parts, first = [], 0
    for each in made:
        if lease is not None and type(each.value) is Placed:
            rows = lease.batch(each.value.rest, first, each.samples)
            parts.append(Collated(each.value.form, rows))
        elif each.value is not NOTHING:
            parts.append(each.value)
        first += each.samples
    return merge(parts) if parts else NOTHING
