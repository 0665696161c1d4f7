# SPDX-License-Identifier: BSD-3-Clause
"""Iterable datasets: it is seen who gave what, and how to go on later.

::

    worker:   dataset --> samples --torch's fetcher--> Marker.__call__: collated, and beside it
                the worker, the dataset's own state after this batch, a checksum of the first ones
    consumer: SampleStream.__next__: turns, rests of dropped batches, states <-- iterating.py

A dataset that has ``state_dict`` and ``load_state_dict`` goes on where it was; of any other what
was given is read again, and passed over.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from time import perf_counter, perf_counter_ns
from typing import Any

from torch.utils.data import get_worker_info
from torch.utils.data._utils.collate import default_collate
from torch.utils.data._utils.pin_memory import pin_memory

from teamster.data.arguments import altered
from teamster.data.iterating import WorkerStreams
from teamster.data.loader_report import LoaderClock
from teamster.data.state import VERSION, as_captured, capture
from teamster.data.transfer import moved, transfer_of
from teamster.data.worker_info import as_no_worker
from teamster.errors import UsageError
from teamster.spine.plan.safety.fingerprint import checksum
from teamster.spine.trace import spans
from teamster.spine.trace.ring import USER, WAIT
from teamster.units import show_seconds

_COMPARED = 2  # batches of each worker: whether all give the same
_COMPARE_S = 0.05  # for the checksum of one, at most


@dataclass(slots=True)
class Marked:
    """A batch, and what is known of it.

    Attributes:
        value: the batch; samples, where they are too few for one.
        samples: how many.
        worker: that made it; 0 for the consumer.
        state: of the dataset after it; None where it has none.
        print: checksum of its samples, for the first of a worker.
        is_rest: whether there are too few samples for a batch.
    """

    value: Any
    samples: int
    worker: int
    state: Any = None
    print: Any = None
    is_rest: bool = False

    def pin_memory(self, *device: str) -> Marked:
        """The same in pinned memory, as torch asks for it."""
        if not self.is_rest:
            self.value = pin_memory(self.value, *device)
        return self


class Marker:
    """Collates, and notes where that was.

    Args:
        collate: the program's own.
        dataset: that is read, where there are no workers.
        full: samples of a full batch, where smaller ones are not to be collated.
    """

    def __init__(self, collate: Callable[[Any], Any], dataset: Any, full: int | None) -> None:
        self._collate = collate
        self._dataset = dataset
        self._full = full
        self._made = 0

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_dataset": None}  # a worker has its own

    def __call__(self, samples: Any) -> Marked:
        """In a worker, or the consumer."""
        info = get_worker_info()
        dataset = info.dataset if info is not None else self._dataset
        count = len(samples) if isinstance(samples, list) else 1
        is_rest = self._full is not None and count < self._full
        marked = Marked(
            list(samples) if is_rest else None,
            count,
            info.id if info is not None else 0,
            dataset.state_dict() if has_state(dataset) else None,
            self._print(samples) if info is not None and self._made < _COMPARED else None,
            is_rest,
        )
        self._made += 1
        if not is_rest:
            began, usual = perf_counter_ns(), self._collate is default_collate
            marked.value = (
                as_no_worker(default_collate, samples) if usual else self._collate(samples)
            )
            spans.note(spans.current_ring(), USER, "collate", began, self._made - 1)
        return marked

    def _print(self, samples: Any) -> Any:
        try:
            return checksum(samples, perf_counter() + _COMPARE_S, anywhere=True)
        except Exception:
            return None


def has_state(dataset: Any) -> bool:
    """Whether a dataset says where it is.

    Example:
        >>> has_state([1, 2])
        False
    """
    return hasattr(dataset, "state_dict") and hasattr(dataset, "load_state_dict")


class SampleStream:
    """One epoch of an iterable dataset.

    Args:
        loader: a `teamster.data.DataLoader`.
        begin: makes torch's iterator of what it is to see as its loader.
        clock: of the loader.
        state: where to go on; None for the beginning.
    """

    def __init__(
        self,
        loader: Any,
        begin: Callable[[Any], Any],
        clock: LoaderClock,
        state: dict[str, Any] | None,
    ) -> None:
        self._of_workers = loader.num_workers
        self._collate = loader.collate_fn
        self._transfer = transfer_of(loader)
        self._clock = clock
        # Too few samples of a worker are no reason to drop them, where others have some, too
        self._full = loader.batch_size if loader.drop_last and self._of_workers else None
        self._begin_epoch(loader, state)
        with nullcontext() if state is None else as_captured(loader, self._captured):
            self._inner = begin(self._view(loader, state))
            if state is not None and self._states is None:
                self._pass_over(state)

    def _begin_epoch(self, loader: Any, state: dict[str, Any] | None) -> None:
        self._captured = capture(loader) if state is None else state["begin"]
        self._given = 0 if state is None else state["given"]
        self._states: dict[int, Any] | None = None if state is None else state["states"]
        self._first = self._given % self._of_workers if self._of_workers and self._states else 0
        self._turn = 0  # of the batches since
        self._waiting: dict[int, deque[Marked]] = {}  # those that came before their turn, by worker
        self._rest: list[Any] = [] if state is None else list(state["rest"])
        self._prints: dict[int, list[Any]] = {}
        self._seconds = 0.0
        self.is_over = False
        self._clock.begin_epoch()

    def _view(self, loader: Any, state: dict[str, Any] | None) -> Any:
        instead: dict[str, Any] = {"collate_fn": Marker(self._collate, loader.dataset, self._full)}
        if self._full is not None:
            instead["drop_last"] = False
        if state is not None and self._states is not None:
            if self._of_workers:
                init = partial(_load, self._states, loader.worker_init_fn)
                instead["worker_init_fn"] = init
            elif 0 in self._states:
                loader.dataset.load_state_dict(self._states[0])
        return altered(loader, **instead)

    def _pass_over(self, state: dict[str, Any]) -> None:
        """Read what was given again, without giving it."""
        if not self._given:
            return
        took_s = show_seconds(state["seconds"])
        warnings.warn(
            f"the dataset has no state_dict and load_state_dict: its first {self._given:,} batches "
            f"are read again, which took {took_s}",
            stacklevel=6,
        )
        given, self._given, self._rest = self._given, 0, []
        for _ in range(given):
            if self._following() is None:
                break
            self._given += 1

    def _reset(self, loader: Any, first_iter: bool = False) -> None:
        """Another epoch with the workers that are there."""
        self._begin_epoch(loader, None)
        self._inner._reset(self._view(loader, None), first_iter)

    def __iter__(self) -> SampleStream:
        return self

    def __next__(self) -> Any:
        self._clock.begin()
        began, began_ns = perf_counter(), perf_counter_ns()
        marked = self._following()
        self._seconds += perf_counter() - began
        if marked is None:
            self.is_over = True
            raise StopIteration
        self._given += 1
        batch = marked.value
        if self._transfer is not None:
            batch = moved(batch, self._transfer, self._clock, self._given - 1)
        self._clock.end(marked.samples)
        spans.note(spans.current_ring(), WAIT, "wait for a batch", began_ns, self._given - 1)
        return batch

    def __len__(self) -> int:
        return len(self._inner)

    def memory_bytes(self) -> int:
        """See `Feed.memory_bytes`; 0 where torch has made the workers."""
        return self._inner.memory_bytes() if isinstance(self._inner, WorkerStreams) else 0

    def __getattr__(self, name: str) -> Any:
        if name == "_inner":  # it could not be made
            raise AttributeError(name)
        return getattr(self._inner, name)

    # --- batches ----------------------------------------------------------------------------------

    def _following(self) -> Marked | None:
        """The next batch, also of what was left of others."""
        while True:
            marked = self._in_turn()
            if marked is None:
                return None
            if not marked.is_rest:
                return marked
            self._rest += marked.value
            if self._full is not None and len(self._rest) >= self._full:
                samples, self._rest = self._rest[: self._full], self._rest[self._full :]
                made = Marked(self._collate(samples), self._full, marked.worker)
                inner = self._inner  # batches of workers it pins itself
                return made.pin_memory(inner._pin_memory_device) if inner._pin_memory else made

    def _in_turn(self) -> Marked | None:
        """The next one of the worker whose turn it is: it may not be the first in turn."""
        if not self._first:
            return self._note(next(self._inner, None))
        worker = (self._first + self._turn) % self._of_workers
        queue = self._waiting.setdefault(worker, deque())
        while not queue:
            marked = next(self._inner, None)
            if marked is None:  # this worker has no more; others may
                left = [each for each in self._waiting.values() if each]
                return self._note(left[0].popleft()) if left else None
            self._waiting.setdefault(marked.worker, deque()).append(marked)
        self._turn += 1
        return self._note(queue.popleft())

    def _note(self, marked: Marked | None) -> Marked | None:
        if marked is None:
            return None
        if marked.state is not None:
            self._states = {**(self._states or {}), marked.worker: marked.state}
        if marked.print is not None and self._of_workers > 1:
            self._compare(marked)
        return marked

    def _compare(self, marked: Marked) -> None:
        """Say so, once, where all workers begin with the same batches."""
        self._prints.setdefault(marked.worker, []).append(marked.print)
        prints = list(self._prints.values())
        complete = len(prints) == self._of_workers and all(
            len(each) == _COMPARED for each in prints
        )
        if complete and all(each == prints[0] for each in prints) and len(set(prints[0])) > 1:
            warnings.warn(
                f"all {self._of_workers} workers give the same samples, so each comes "
                f"{self._of_workers} times: an iterable dataset has to give each worker its part, "
                "by torch.utils.data.get_worker_info() in its __iter__; or leave num_workers out",
                stacklevel=5,
            )

    # --- state ------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Where this epoch is."""
        return {
            "version": VERSION,
            "workers": self._of_workers,
            "begin": self._captured,
            "given": self._given,
            "states": self._states,
            "rest": list(self._rest),
            "seconds": self._seconds,
        }


def stream_state(loader: Any, latest: SampleStream | None) -> dict[str, Any]:
    """Where a loader is that has begun `latest`, or nothing yet."""
    if latest is not None and not latest.is_over:
        return latest.state()
    begin = {"version": VERSION, "workers": loader.num_workers, "begin": capture(loader)}
    return {**begin, "given": 0, "states": None, "rest": [], "seconds": 0.0}


def check_stream_state(state: Any, workers: int) -> None:
    """Refuse what is no state of such a loader.

    Raises:
        UsageError: it says what is wrong.
    """
    if not isinstance(state, dict) or state.get("version") != VERSION or "workers" not in state:
        raise UsageError(
            "this is no state of a teamster.data.DataLoader with an iterable dataset "
            "(from state_dict())"
        )
    if state["workers"] != workers and state["given"]:
        raise UsageError(
            f"the state is of {state['workers']} workers, and this loader has {workers}: each has "
            "a part of an iterable dataset, so the number has to be the same"
        )


def _load(states: dict[int, Any], init: Callable[[int], object] | None, worker: int) -> None:
    """In a worker, before it reads."""
    if init is not None:
        init(worker)
    if worker in states:
        get_worker_info().dataset.load_state_dict(states[worker])
