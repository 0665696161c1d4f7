# SPDX-License-Identifier: BSD-3-Clause
"""`map`, `imap` and `imap_unordered`: from an iterable to batches, and from results back to order.

::

    iterable --> Source.next_batch --> team.offer      in the caller's thread only, as far ahead as there is room
                                          |
    list, generator <-- Ordered / Unordered <-- on_values, on_error

Read-ahead is bounded: nothing is pulled that no worker has room for, and a consumer that is slower than the workers stops them,
since nobody pulls but its own `next`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from time import perf_counter_ns
from typing import Any

from teamster.spine.workers.contract import Batch, Spec
from teamster.spine.workers.job import Job, Terms
from teamster.spine.workers.team import Team
from teamster.tasks.clock import WallClock
from teamster.tasks.progress import Bar

_SLOW_INPUT_NS = 1_000_000
_GLANCE_NS = 1_000_000
_SMALL = (int, float, bool, type(None))

_FAR_ITEMS = 1 << 16
_FAR_BYTES = 256 << 20
"""How far ahead of a slow item others may run, while the consumer waits for it."""


class _Raise:
    """Stands in the results for an item whose exception is to be raised when its turn comes."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Source:
    """The input: pulled in the caller's thread, closed there."""

    def __init__(self, iterables: tuple[Iterable[Any], ...]) -> None:
        self.total = self.length(iterables)
        self._iterator: Iterator[Any] = iter(iterables[0]) if len(iterables) == 1 else zip(*iterables, strict=False)
        self._originals = iterables
        self.pulled = 0
        self.exhausted = False
        self.slow = False  # the last pull took its time, or was the first and tells nothing of the next
        self.error: BaseException | None = None  # raised by the input itself

    @staticmethod
    def length(iterables: tuple[Iterable[Any], ...]) -> int | None:
        """How many items there will be, None where an iterable does not know."""
        try:
            return min(len(iterable) for iterable in iterables)  # type: ignore[arg-type]
        except TypeError:
            return None

    def next_items(self, count: int) -> list[Any]:
        """At most `count` items; fewer at the end, or before an error of the input, which is kept for later."""
        items: list[Any] = []
        began = perf_counter_ns()
        try:
            items.extend(islice(self._iterator, count))
        except Exception as error:
            self.error = error
            self.exhausted = True
        if len(items) < count:
            self.exhausted = True
        self.slow = self.total is None and (self.pulled == 0 or perf_counter_ns() - began > _SLOW_INPUT_NS)
        self.pulled += len(items)
        return items

    @property
    def remaining(self) -> int | None:
        """Items still to be pulled, None when the input does not know its length."""
        return None if self.total is None else max(0, self.total - self.pulled)

    def close(self) -> None:
        """Close generators, so that their ``finally`` runs here and now."""
        self.exhausted = True
        for original in self._originals:
            close = getattr(original, "close", None)
            if close is not None and hasattr(original, "send"):
                close()


class Mapping:
    """One map call under way."""

    def __init__(
        self,
        team: Team,
        spec: Spec,
        source: Source,
        terms: Terms,
        *,
        raise_errors: bool,
        bar: Bar,
        ordered: bool,
        lazy: bool,
    ) -> None:
        self._team = team
        self._source = source
        self._raise_errors = raise_errors
        self._ordered = ordered
        self._lazy = lazy
        self._bar = bar
        self._ready: deque[Any] = deque()  # results in the order in which they are wanted
        self._parked: dict[int, list[Any]] = {}  # first index -> results whose turn has not come
        self._next = 0
        self._reported = 0
        self._taken = 0
        self._bytes = 0
        self._glanced_ns = 0
        self.error: BaseException | None = None
        self._dead = False  # no result will come any more
        self.job = Job(
            spec,
            terms,
            on_values=self._take_values,
            on_error=self._take_error,
            on_failure=self._fail,
        )

    # --- results, from whatever thread leads; the team's lock is held ---------------------------------------------------

    def _take_values(self, first: int, values: list[Any]) -> None:
        self._reported += len(values)
        if not self._ordered or first == self._next:
            self._ready.extend(values)
            self._next = first + len(values)
            while self._parked and (parked := self._parked.pop(self._next, None)) is not None:
                self._ready.extend(parked)
                self._next += len(parked)
        else:
            self._parked[first] = values
        if self._lazy and type(values[0]) not in _SMALL:
            self._bytes += _large_bytes(values)
        self._bar.add(len(values))

    def _take_error(self, index: int, error: BaseException) -> None:
        if self._raise_errors:
            self.error = self.error or error
            self._take_values(index, [_Raise(error)])
        else:
            self._take_values(index, [error])

    def _fail(self, error: BaseException) -> None:
        self.error = error
        self._dead = True

    # --- the caller's side --------------------------------------------------------------------------------------------------

    def _refill(self) -> None:
        """Pull and offer as many batches as there is room for.

        Batches of a fast input are offered together, in one message for each worker. A slow input is handed on as it comes, and
        between two pulls the results are looked at.
        """
        while batches := self._pull_batches():
            self._team.offer(self.job, batches)
            if self._source.slow:
                self._team.glance()
                if self._ready:
                    return

    def _pull_batches(self) -> list[Batch]:
        source, batches = self._source, list[Batch]()
        room = self._team.room(self.job)
        while len(batches) < room and not source.exhausted and self.error is None and (not self._lazy or self._may_pull()):
            first = source.pulled
            items = source.next_items(self.job.batch_items(source.remaining, self._team.count))
            if items:
                batches.append(Batch(self.job, first, items))
            if source.slow:
                break
        return batches

    def _may_pull(self) -> bool:
        waiting = self._reported - self._taken
        if self._ready:  # the consumer has something to take
            return self._source.pulled - self._taken < self._team.capacity(self.job) * self.job.batch_items(None, 1)
        return waiting < _FAR_ITEMS and self._bytes < _FAR_BYTES

    def _complete(self) -> bool:
        return self._source.exhausted and self._reported == self._source.pulled

    def _drained(self) -> bool:
        """After an error nothing is pulled any more, so what is out is all there will be."""
        return self.error is not None and self._reported == self._source.pulled

    def collect(self) -> list[Any]:
        """Run to the end; the results in input order."""
        try:
            self._team.run_until(lambda: self.error is not None or self._complete(), self._refill)
            self._raise_if_failed()
        except BaseException as error:
            self._abandon(error)
            raise
        self._end()
        return list(self._ready)

    def _raise_if_failed(self) -> None:
        if self.error is not None:
            raise self.error
        if self._source.error is not None:
            self.error = self._source.error
            raise self._source.error

    def stream(self) -> Iterator[Any]:
        """Results as they are wanted."""
        try:
            while self._await_result():
                value = self._ready.popleft()
                self._taken += 1
                if type(value) is _Raise:
                    raise value.error
                if self._bytes:
                    self._bytes -= _large_bytes([value])
                yield value
                del value  # its memory is the consumer's alone
        except BaseException as error:
            self._abandon(error)
            raise
        self._end()

    def _await_result(self) -> bool:
        """Make sure that there is a result to take; False at the end."""
        if self._ready:
            now = perf_counter_ns()
            if now - self._glanced_ns > _GLANCE_NS:  # a consumer that takes its time: keep the workers busy meanwhile
                self._glanced_ns = now
                self._team.glance()
                self._refill()
            return True
        self._team.run_until(lambda: bool(self._ready) or self._dead or self._complete() or self._drained(), self._refill)
        if not self._ready:
            self._raise_if_failed()
        return bool(self._ready)

    def _abandon(self, reason: BaseException) -> None:
        """Cancel the rest; on Ctrl-C the items that run are ended, too."""
        interrupted = isinstance(reason, KeyboardInterrupt)
        self._team.cancel(self.job, kill=interrupted)
        self._source.close()
        self._bar.close()
        if interrupted and self._team.crew.kind != "serial":
            raise reason.with_traceback(None) from None  # where in the polling it struck is of no interest

    def _end(self) -> None:
        self._team.finish(self.job)
        self._bar.set_total(self._reported)
        self._bar.close()


class Results(Iterator[Any]):
    """What `imap` returns: an iterator of results that any thread may ask for the next.

    Closing it, dropping it or leaving a ``with`` block of it cancels what has not started.
    """

    def __init__(self, mapping: Mapping, pool: object, clock: WallClock) -> None:
        self._pool = pool  # a pool without a name must not end under its results
        self._clock: WallClock | None = clock
        clock.__enter__()
        self._stream = mapping.stream()
        self._lock = threading.Lock()
        self._hold: Any = None  # a pool that is nobody else's

    def holding(self, pool: Any) -> Results:
        """Own `pool`: it ends with this iterator."""
        self._hold = pool
        return self

    def __next__(self) -> Any:
        with self._lock:
            try:
                return next(self._stream)
            except BaseException:
                self._release()
                raise

    def close(self) -> None:
        """Cancel the rest."""
        with self._lock:
            self._stream.close()  # type: ignore[attr-defined]
            self._release()

    def _release(self) -> None:
        clock, self._clock = self._clock, None
        if clock is not None:
            clock.__exit__()
        hold, self._hold = self._hold, None
        if hold is not None:
            hold.terminate()

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def _large_bytes(values: list[Any]) -> int:
    """Bytes of what is visibly large; small objects are bounded by their number."""
    total = 0
    for value in values:
        nbytes = getattr(value, "nbytes", None)
        if isinstance(nbytes, int):
            total += nbytes
        elif isinstance(value, (bytes, bytearray, str)):
            total += len(value)
    return total
