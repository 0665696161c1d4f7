# SPDX-License-Identifier: BSD-3-Clause
"""Processes that iterate over an iterable dataset, each over its part.

::

    worker 0: iter(dataset) --torch's fetcher--> batch 0, batch 2, ... --> shared memory --+
    worker 1: iter(dataset) --torch's fetcher--> batch 1, batch 3, ... --> shared memory --+-> turns

Each worker is a pool of its own, since what it has begun only it can go on with. A worker that dies
ends the epoch with an error: its successor could not know where that was.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from time import perf_counter_ns
from typing import Any

import torch
from torch.utils import data
from torch.utils.data._utils.pin_memory import pin_memory
from torch.utils.data.dataloader import _BaseDataLoaderIter, _DatasetKind

from teamster.data.bounds import InFlight
from teamster.data.forked import own_or_torchs
from teamster.data.processes import PRELOADED
from teamster.data.reading import become_worker
from teamster.data.witness import answer, ask, stacks_of
from teamster.errors import WorkerDied
from teamster.machine.usage import proportional_bytes
from teamster.spine.trace import spans
from teamster.spine.trace.ring import USER
from teamster.tasks.monitor.registry import do_not_finish
from teamster.tasks.monitor.snapshot import worker_pids
from teamster.tasks.pool import Pool

_PREFETCH = 2  # batches ahead of each worker, as torch has it


class _End:
    def __reduce__(self) -> str:
        return "_END"  # the very one, in another process, too


_END: Any = _End()  # in place of a batch: a worker has no more


def stream_of(loader: Any) -> Any:
    """An iterator over the batches of an iterable dataset.

    Args:
        loader: what it is to see as its loader.

    Returns:
        One with workers of ours; torch's own without workers, for its own pipes, and where the
        dataset can only be had by a fork.
    """
    if not loader.num_workers or isinstance(loader.dataset, data.IterDataPipe):
        return data.DataLoader._get_iterator(loader)
    return own_or_torchs(loader, lambda: WorkerStreams(loader))[0]


class WorkerStreams(_BaseDataLoaderIter):  # type: ignore[misc]  # torch is not followed
    """One epoch, or several with workers that stay.

    Args:
        loader: what it is to see as its loader.

    Raises:
        Exception: the dataset does not pickle, or processes cannot be started in this way.
    """

    def __init__(self, loader: Any) -> None:
        self._pools: list[Pool] = []
        super().__init__(loader)
        self._in_order = loader.in_order
        self._ahead = loader.prefetch_factor or _PREFETCH
        self._bound: InFlight = loader._bound
        self._begin_epoch(loader)

    def _reset(self, loader: Any, first_iter: bool = False) -> None:
        super()._reset(loader, first_iter)
        self._begin_epoch(loader)

    def _make_pools(self, loader: Any) -> None:
        context, count = loader.multiprocessing_context, loader.num_workers
        method = context.get_start_method() if context is not None else None
        # With what each epoch is begun with: an error that it does not pickle comes now
        init, watched = loader.worker_init_fn, bool(loader.timeout)
        how = count, self._base_seed, loader.dataset, init, _how(loader), watched
        try:
            for number in range(count):
                pool = Pool(
                    "process",
                    workers=1,
                    initializer=_enter,
                    initargs=(number, *how),
                    start_method=method,
                    preload=PRELOADED if method in (None, "forkserver") else (),
                )
                self._pools.append(pool)
                do_not_finish(pool)
        except BaseException:
            self.close()
            raise

    def _begin_epoch(self, loader: Any) -> None:
        if not self._pools:  # the first, or one has died in the epoch before
            self._make_pools(loader)
        self._begun = [pool.submit(_begin, *_how(loader)) for pool in self._pools]
        self._turns = deque(range(len(self._pools)))  # workers that may have more, the next first
        self._asked: dict[int, deque[Future[Any]]] = {number: deque() for number in self._turns}
        self._refill()

    def _refill(self) -> None:
        """Ask for as many as may be open; each worker has one of its own to make."""
        known, count = self._bound.is_known, max(1, len(self._turns))
        each = max(1, self._bound.of(self._ahead * count) // count) if known else 1
        for _ in range(each):  # the next one in turn first, one of each at a time
            for number in self._turns:
                if len(self._asked[number]) < each:
                    self._ask(number)

    def _ask(self, number: int) -> None:
        self._asked[number].append(self._pools[number].submit(_following, self._next_index()))

    def _next_data(self) -> Any:
        while self._turns:
            number = self._whose_turn()
            batch = self._result(number)
            if batch is _END:
                self._turns.remove(number)
                continue
            self._turns.rotate(-1)
            self._bound.learn(getattr(batch, "value", batch))
            self._refill()
            return pin_memory(batch, self._pin_memory_device) if self._pin_memory else batch
        if not self._persistent_workers:
            self.close()
        raise StopIteration

    def _whose_turn(self) -> int:
        """The next worker; of those that may come in any order the first that has a batch."""
        if not self._in_order:
            oldest = {self._asked[number][0]: number for number in self._turns}
            done, _ = wait(oldest, self._timeout or None, FIRST_COMPLETED)
            number = next((oldest[each] for each in oldest if each in done), self._turns[0])
            self._turns.rotate(-self._turns.index(number))
        return self._turns[0]

    def _result(self, number: int) -> Any:
        """The oldest batch of a worker; it stays where it is until it is there, or has failed."""
        asked, begun = self._asked[number], self._begun[number]
        try:
            if begun.done():
                begun.result()
            made = asked[0].result(self._timeout or None)
            asked.popleft()
            return made
        except WorkerDied:
            self._turns.clear()
            self.close()
            raise
        except Exception as error:  # of the dataset: the worker goes on, as torch's does
            if isinstance(error, FutureTimeout) and not asked[0].done():
                told = ask(worker_pids(self._pools[number]))
                where = "".join(f"; its worker is here:\n{stack}" for _, stack in told)
                text = f"no batch came within timeout={self._timeout:g} s{where}"
                raise RuntimeError(text) from None
            if begun.done() and begun.exception() is not None:  # its worker could not be had
                self._turns.clear()
                self.close()
                raise
            asked.popleft()
            self._ask(number)
            self._turns.rotate(-1)
            raise
        finally:
            del asked, begun  # an error leads back to here, and from a future to its pool

    def memory_bytes(self) -> int:
        """See `Feed.memory_bytes`."""
        return sum(proportional_bytes(pid) for pool in self._pools for pid in worker_pids(pool))

    def close(self) -> None:
        """End the workers."""
        for pool in self._pools:
            pool.terminate()
        self._pools.clear()

    def __del__(self) -> None:
        self.close()


# --- in a worker ----------------------------------------------------------------------------------


class _PartOfStream:
    """What a worker iterates over."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self._how: tuple[Any, ...] = ()
        self._fetcher: Any = None
        self._has_begun = False

    def begin(self, *how: Any) -> None:
        """From the beginning, when the first batch is asked for."""
        self._how, self._fetcher, self._has_begun = how, None, True

    def following(self, indices: Any) -> Any:
        """The next batch.

        Raises:
            WorkerDied: the process that had begun this did, before it was asked for the batch.
        """
        if not self._has_begun:
            raise WorkerDied(
                "the process of this worker of the loader died between two batches, killed or out "
                "of memory; where it was in its part of the dataset is not known"
            )
        how, self._how = self._how, ()
        if how:
            self._fetcher = _DatasetKind.create_fetcher(_DatasetKind.Iterable, self._dataset, *how)
        with suppress(StopIteration):
            if self._fetcher is not None:  # else it could not be made, or is at its end
                began = perf_counter_ns()
                batch = self._fetcher.fetch(indices)
                spans.note(spans.current_ring(), USER, "read a batch", began)
                return batch
        self._fetcher = None
        return _END


_here: list[_PartOfStream] = []  # of this process


def _how(loader: Any) -> tuple[Any, ...]:
    return loader._auto_collation, loader.collate_fn, loader.drop_last


def _enter(
    number: int,
    workers: int,
    base_seed: int,
    dataset: Any,
    init: Any,
    how: tuple[Any, ...],
    watched: bool,
) -> None:
    torch.set_num_threads(1)  # as torch's own have: the others of the program have theirs
    if watched:
        me = threading.get_ident()
        answer(lambda: stacks_of([(me, number)]))
    become_worker(number, workers, base_seed, dataset, init)
    _here[:] = [_PartOfStream(dataset)]


def _begin(auto_collation: bool, collate: Any, drop_last: bool) -> None:
    _here[0].begin(auto_collation, collate, drop_last)


def _following(indices: Any) -> Any:
    return _here[0].following(indices)
