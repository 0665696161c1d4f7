# SPDX-License-Identifier: BSD-3-Clause
"""Batches that processes fill together; each process has the dataset, from its start.

::

    begin(indices) --> a task for some rows each --> process: samples, collated --> merged here
                       or one for all of them, where the user collates --> a batch
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from time import perf_counter
from typing import Any

import torch
from torch.utils.data._utils import worker as torch_worker

from teamster.data.collate import merge
from teamster.data.fetch import NOTHING, Fetch, Made
from teamster.data.rows import RowsPerTask
from teamster.errors import WorkerDied
from teamster.spine.workers.worker_info import current_worker
from teamster.tasks.pool import Pool

_here: list[Fetch] = []  # of this process, where it is a worker


class ProcessFeed:
    """Fills batches by processes.

    Args:
        fetch: of the dataset, which has to pickle.
        workers: how many processes.
        ahead: how many batches may be open.
        base_seed: worker i begins with the random numbers of `base_seed` + i, as in torch's loader.
        worker_init_fn: called in each with its number, or None.
        start_method: of the processes; None for the usual one.

    Example:
        >>> feed = ProcessFeed(Fetch([3, 4, 5], list, True), 2, 2, base_seed=1)
        >>> feed.begin([2, 0], 0).result(60.0).value
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
    ) -> None:
        self.ahead = ahead
        self.rows = RowsPerTask()
        self.fetch = fetch
        self._pool = Pool(
            "process",
            workers=workers,
            initializer=_enter,
            initargs=(fetch, workers, base_seed, worker_init_fn),
            start_method=start_method,
        )
        self._first = self._pool.submit(_is_here)

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

    def begin(self, indices: Any, base: int) -> ProcessBatch:
        """See `Feed.begin`."""
        if not self.fetch.mergeable or not indices:
            return ProcessBatch([_Part(self, _make_whole, indices, base)])
        size = len(indices)
        step = self.rows.of(size)
        cuts = [indices[first : first + step] for first in range(0, size, step)]
        return ProcessBatch([_Part(self, _make_part, cut, base) for cut in cuts])

    def submit(self, make: Callable[..., Made], indices: Any, base: int) -> Future[Made]:
        """Have some rows read."""
        return self._pool.submit(make, indices, base)

    def close(self) -> None:
        """See `Feed.close`."""
        self._pool.terminate()


class _Part:
    """Some rows of a batch, in the hands of a process."""

    def __init__(
        self, feed: ProcessFeed, make: Callable[..., Made], indices: Any, base: int
    ) -> None:
        self._feed = feed
        self._make = make
        self._indices = indices
        self._base = base
        self._future: Future[Made] | None = feed.submit(make, indices, base)

    @property
    def ready(self) -> bool:
        return self._future is None or self._future.done()

    def made(self, until: float | None, *, again: bool = True) -> list[Made]:
        """What came of it; when its process died, what came of its rows, each by itself."""
        future, self._future = self._future, None  # an error's traceback leads back to here
        assert future is not None
        try:
            made = future.result(None if until is None else max(0.0, until - perf_counter()))
        except FutureTimeout:
            if future.done():  # the user's own
                raise
            raise TimeoutError(f"it waits for samples {self._indices!r:.200}") from None
        except WorkerDied as death:
            if again:
                return self._again(until)
            given_up = self._feed.fetch.give_up(self._indices, death)
            if given_up is None:
                raise
            return [given_up]
        finally:
            del future
        if self._make is _make_part:
            self._feed.rows.learn(made.samples, made.read_s)
        return [made]

    def _again(self, until: float | None) -> list[Made]:
        apart = self._make is _make_part and len(self._indices) > 1
        rows = [[index] for index in self._indices] if apart else [self._indices]
        parts = [_Part(self._feed, self._make, each, self._base) for each in rows]
        return [made for part in parts for made in part.made(until, again=False)]


class ProcessBatch:
    """A batch that several processes fill.

    Args:
        parts: some rows each, in order.
    """

    def __init__(self, parts: list[_Part]) -> None:
        self._parts = parts

    @property
    def ready(self) -> bool:
        """See `OpenBatch.ready`."""
        return all(part.ready for part in self._parts)

    def result(self, timeout: float | None) -> Made:
        """See `OpenBatch.result`."""
        until = None if timeout is None else perf_counter() + timeout
        parts, self._parts = self._parts, []
        made: list[Made] = []
        while parts:
            made += parts.pop(0).made(until)
        values = [each.value for each in made if each.value is not NOTHING]
        return Made(
            merge(values) if values else NOTHING,
            sum(each.samples for each in made),
            [failure for each in made for failure in each.failures],
        )


# --- in a worker ----------------------------------------------------------------------------------


def _enter(
    fetch: Fetch, workers: int, base_seed: int, init: Callable[[int], object] | None
) -> None:
    """Have the dataset, random numbers of its own, and what `get_worker_info` tells."""
    worker = current_worker()
    number = worker.index if worker is not None else 0
    seed = base_seed + number
    random.seed(seed)
    torch.manual_seed(seed)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(torch_worker._generate_state(base_seed, number))
    info = torch_worker.WorkerInfo(id=number, num_workers=workers, seed=seed, dataset=fetch.dataset)
    torch_worker._worker_info = info
    _here[:] = [fetch]
    if init is not None:
        init(number)


def _is_here() -> None:
    """Answered by the first worker that has the dataset."""


def _make_whole(indices: Any, base: int) -> Made:
    return _here[0].whole(indices, base)


def _make_part(indices: Sequence[Any], base: int) -> Made:
    began = perf_counter()
    made = _here[0].samples(indices, base)
    made.read_s = perf_counter() - began
    return _here[0].collate(made, indices, base)
