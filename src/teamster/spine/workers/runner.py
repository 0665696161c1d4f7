# SPDX-License-Identifier: BSD-3-Clause
"""The loop that runs a batch: the same code in a process, a thread and the caller.

::

    batch --> blocks of one item  --> mark on the scoreboard --> call --> sink.keep(result)
              (of many, when an item takes under a microsecond)

One item at a time is what makes the blame exact and a finished result safe. Marking and saving cost
about half a microsecond, more than a tiny function itself, so items that were measured to take less
than a microsecond are run in blocks. When a worker dies inside such a block, its items run again
one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice, starmap
from time import perf_counter_ns
from typing import Any, Protocol

from teamster.spine.trace.ring import COMPUTE, Ring
from teamster.spine.trace.spans import current_ring
from teamster.spine.workers.batch import FunctionSpec
from teamster.spine.workers.scoreboard import COMMITTED, LIMIT, STARTED, STARTED_NS, WIDTH
from teamster.spine.workers.seeds import seed_task

BULK_BELOW_NS = 1_000
"""Marking and saving an item takes 1 to 2 us.

A function that takes less than this itself is run in blocks.
"""

BULK_ITEMS = 1024  # in a block: what one death makes run again
_BULK_NS = 100_000  # and no block takes longer than this
_FEW_ITEMS = 64  # looked at before it is asked anew what an item takes
# A batch of so many speaks for itself; a smaller one is averaged with what came before
_ENOUGH_ITEMS = 8


class Sink(Protocol):
    """Takes results as they come; after `keep` has returned they survive the worker."""

    def keep(self, first: int, values: list[Any]) -> None:
        """Take the results of consecutive items."""

    def keep_failure(self, first: int, error: BaseException) -> None:
        """Take the exception of one item."""


class Runner:
    """Runs batches of one job for one worker."""

    def __init__(self, spec: FunctionSpec, function: Callable[..., Any], words: memoryview) -> None:
        self._spec = spec
        self._words = words
        self._function = function
        self.low_latency = spec.low_latency
        self._call = _caller(spec, function)
        self._title = title_of(function)
        self.item_ns = float(BULK_BELOW_NS)  # of the function alone
        self._spent_ns = 0  # in calls of the function, in the piece that runs

    def run(self, items: Sequence[Any], first: int, index: int, sink: Sink) -> int:
        """Run consecutive items.

        They are number `first` and following of this worker and number `index` and following of
        the job.

        Returns:
            How many were run; fewer than there are when the parent took the rest back.
        """
        ran, ring = 0, current_ring()
        while ran < len(items):
            # A batch may be as long as the user wants, and change on the way: what the function
            # takes is asked again and again.
            bulk = (
                self.item_ns < BULK_BELOW_NS
                and not self._spec.one_by_one
                and self._spec.style != "apply"
            )
            piece = items[ran : ran + (BULK_ITEMS if bulk else _FEW_ITEMS)]
            self._spent_ns = 0
            run = self._in_blocks if bulk else self._one_by_one
            done = run(piece, first + ran, index + ran, sink, ring)
            ran += done
            if done:
                self._learn(self._spent_ns / done, done)
            if done < len(piece):
                break
        return ran

    def _learn(self, item_ns: float, items: int) -> None:
        item_ns = max(1.0, item_ns)  # of a clock that stands still for a moment
        weight = 1.0 if item_ns > self.item_ns else min(1.0, items / _ENOUGH_ITEMS)
        self.item_ns += weight * (item_ns - self.item_ns)

    def run_one_by_one(self) -> None:
        """Run one by one from now on, whatever the items take."""
        self._spec.one_by_one = True

    def _one_by_one(
        self, items: Sequence[Any], first: int, index: int, sink: Sink, ring: Ring | None
    ) -> int:
        words, call, seed, keep = self._words, self._call, self._spec.seed, sink.keep
        words[WIDTH] = 1
        number, spent, failed = first, 0, 0
        known = self._spec.style != "apply"  # else they are calls, which have no index
        write, name, piece_began = None, 0, perf_counter_ns()
        if ring is not None:
            name = self._name(ring)
            write = ring.write if ring.grain_ns <= self.item_ns else None
        for item in items:
            began = words[STARTED_NS] = perf_counter_ns()
            words[STARTED] = number
            if number >= words[LIMIT]:
                break
            try:
                if seed is not None:
                    seed_task(seed, index + number - first)
                value = call(item)
                ended = perf_counter_ns()
                spent += ended - began
            except BaseException as error:
                spent += perf_counter_ns() - began
                if ring is not None:
                    title = self._title if known or item[0] is None else title_of(item[0])
                    raised = ring.name(f"{title} raised {type(error).__name__}")
                    place = index + number - first if known else -1
                    ring.write(began, perf_counter_ns(), place, 1, raised, COMPUTE)
                    failed += 1
                sink.keep_failure(number, error)
            else:
                if write is not None:  # before the result is safe: what is finished is shown
                    place = index + number - first if known else -1
                    called = name if known else self._name(ring, item)
                    write(began, ended, place, 1, called, COMPUTE)
                keep(number, [value])
            number += 1
            words[COMMITTED] = number
        if ring is not None and write is None and number - failed > first:
            place, count = index if known else -1, number - first - failed
            ring.write(piece_began, perf_counter_ns(), place, count, name, COMPUTE)
        self._spent_ns = spent
        return number - first

    def _name(self, ring: Ring | None, call: Any = (None,)) -> int:
        """Of the function on the timeline; that of a submitted call, if it brings one."""
        if ring is None:
            return 0
        return ring.name(self._title if call[0] is None else title_of(call[0]))

    def _in_blocks(
        self, items: Sequence[Any], first: int, index: int, sink: Sink, ring: Ring | None
    ) -> int:
        words = self._words
        position, width = 0, max(1, min(BULK_ITEMS, int(_BULK_NS / max(self.item_ns, 1.0))))
        while position < len(items):
            block = items[position : position + width]
            words[WIDTH] = len(block)
            began = words[STARTED_NS] = perf_counter_ns()
            words[STARTED] = first + position
            if first + position >= words[LIMIT]:
                break
            self._run_block(block, first + position, sink)
            ended = perf_counter_ns()
            self._spent_ns += ended - began
            if ring is not None:
                ring.write(
                    began, ended, index + position, len(block), ring.name(self._title), COMPUTE
                )
            position += len(block)
            words[COMMITTED] = first + position
        return position

    def _run_block(self, block: Sequence[Any], first: int, sink: Sink) -> None:
        pending = iter(block)
        run = (
            starmap(self._function, pending)
            if self._spec.style == "star"
            else map(self._call, pending)
        )
        position = 0
        while position < len(block):
            values: list[Any] = []
            failure: BaseException | None = None
            try:
                # What came before an exception stays in the list
                values.extend(islice(run, len(block) - position))
            except BaseException as error:
                failure = error
            if values:
                sink.keep(first + position, values)
                position += len(values)
            if position < len(block):
                # An item that raised StopIteration ends the loop without an exception
                sink.keep_failure(first + position, failure or StopIteration())
                position += 1


def title_of(function: Callable[..., Any]) -> str:
    """What a function is called on a timeline."""
    inner = getattr(function, "func", function)  # of a functools.partial
    return str(getattr(inner, "__qualname__", type(inner).__name__)).replace("<locals>.", "")


def _caller(spec: FunctionSpec, function: Callable[..., Any]) -> Callable[[Any], Any]:
    """One item to one call: the function itself, or with the item unpacked."""
    if spec.style == "star":
        return lambda item: function(*item)
    if spec.style == "apply":
        return lambda call: (function if call[0] is None else call[0])(*call[1], **call[2])
    return function
