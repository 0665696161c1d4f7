# SPDX-License-Identifier: BSD-3-Clause
"""Calls that wait for a worker one by one, and travel many at a time.

::

    submit --> Backlog: futures in the order of submission --take--> CallBatch --> worker
                                                                        |
               future.settle <--- outcomes (without the lock) <---------+

A call costs an entry in one queue until a worker has room; then as many as fill a few milliseconds
go in one message. What they come to is queued once more, so that futures are settled without the
team's lock: a callback may take as long as it likes, and use the pool.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from threading import get_ident
from typing import Any, Protocol

from teamster.spine.workers.batch import Batch
from teamster.spine.workers.job import Job


def no_function() -> None:
    """Stands for the function of a job with calls that bring their own."""


class Call(Protocol):
    """A future, as the team that runs it sees it."""

    def claim(self) -> Any:
        """What is to run, and from then on cannot be cancelled; None when it was."""

    def cancel(self) -> bool:
        """Take it back, if it has not started."""

    def settle(self, value: Any, error: BaseException | None) -> bool:
        """Take what it came to, and tell the callers that wait; whether it has callbacks."""

    def call_back(self) -> None:
        """Run its callbacks."""


Outcomes = deque[tuple[Call, Any, BaseException | None]]


ANY_THREAD = 0
"""Stands for the thread that runs callbacks where there is no such thread."""


class OpenCalls:
    """The calls of one team that were submitted and are not settled.

    Args:
        lock: the team's.
        outcomes: what calls have come to, to be told.
        settled: called with the lock held, when some have been told.
    """

    def __init__(
        self, lock: threading.RLock, outcomes: Outcomes, settled: Callable[[], None]
    ) -> None:
        self._lock = lock
        self._outcomes = outcomes
        self._settled = settled
        self._telling: dict[int, int] = {}  # by thread: calls that it is settling
        self._left: deque[Call] = deque()  # with callbacks that the reader is to run
        self.reader = ANY_THREAD  # the thread that runs callbacks
        self.wake_reader: Callable[[], object] = bool
        self.count = 0
        # Told, without the lock, when the first is open, and when the last is over
        self.on_change: Callable[[bool], object] = bool

    def open(self) -> bool:
        """Count one more, with the lock held.

        Returns whether it is the first, of which `on_change` is to be told.
        """
        self.count += 1
        return self.count == 1

    def close(self, count: int = 1) -> None:
        """So many are over: told, or taken back before they were handed out.

        The places in the queue of those taken back are passed over.
        """
        with self._lock:
            self.count -= count
            ends = count > 0 and not self.count
            self._settled()
        if ends:
            self.on_change(False)

    def settle(self) -> None:
        """Tell futures what they have come to; called without the lock.

        Callbacks are left to the reader where there is one: a caller that waits for a future, or
        submits another, may hold a lock of the program's that a callback takes.
        """
        told, thread = 0, get_ident()
        outer = self._telling.get(thread, 0)  # a callback may come here, too
        calls_back = self.reader in (ANY_THREAD, thread)
        try:
            while (call := self._next(calls_back)) is not None:
                told += 1
                self._telling[thread] = outer + told
                call.call_back()
        finally:
            self._telling[thread] = outer
            if not outer:
                del self._telling[thread]
            self.close(told)
        if self._left:
            self.wake_reader()

    def _next(self, calls_back: bool) -> Call | None:
        """A call that was told what it has come to; its callbacks, if any, are to be run here."""
        try:
            while self._outcomes:
                call, value, error = self._outcomes.popleft()
                if not call.settle(value, error) or calls_back:
                    return call
                self._left.append(call)
            return self._left.popleft() if calls_back and self._left else None
        except IndexError:  # another thread was faster
            return None

    @property
    def has_left(self) -> bool:
        """Whether callbacks wait for the reader."""
        return bool(self._left)

    @property
    def settled_here(self) -> int:
        """How many this thread is settling right now: more than none in a callback."""
        return self._telling.get(get_ident(), 0)


class Backlog:
    """Calls of one job that follow each other in the queue."""

    __slots__ = ("calls", "exclusive", "job", "outcomes")

    def __init__(self, job: Job, outcomes: Outcomes) -> None:
        self.job = job
        self.exclusive = False
        self.calls: deque[Call] = deque()
        self.outcomes = outcomes

    @property
    def size(self) -> int:
        """How many."""
        return len(self.calls)

    def take(self, most: int) -> CallBatch | None:
        """The next calls, at most so many, from now on running.

        None when all of them were cancelled.
        """
        pending, calls, items = self.calls, list[Call | None](), list[Any]()
        while pending and len(calls) < most:
            call = pending.popleft()
            item = call.claim()
            if item is not None:
                calls.append(call)
                items.append(item)
        return CallBatch(self.job, calls, items, self.outcomes) if calls else None

    def abandon(self, error: BaseException) -> None:
        """None of them will run."""
        self.outcomes.extend((call, None, error) for call in self.calls)
        self.calls.clear()


class CallBatch(Batch):
    """Calls on their way through one worker; they have no index in any input."""

    __slots__ = ("calls", "outcomes")

    items: list[Any]

    def __init__(
        self, job: Job, calls: list[Call | None], items: list[Any], outcomes: Outcomes
    ) -> None:
        super().__init__(job, -1, items)
        self.calls = calls
        self.outcomes = outcomes

    def of(self, first: int, start: int, end: int) -> Batch:
        """Some of them."""
        return CallBatch(self.job, self.calls[start:end], self.items[start:end], self.outcomes)

    def take_values(self, offset: int, values: list[Any]) -> None:
        """Results, to be told without the lock."""
        for at, value in enumerate(values, offset):
            self._tell(at, value, None)

    def take_error(self, offset: int, error: BaseException) -> None:
        """An error, to be told without the lock."""
        self._tell(offset, None, error)

    def _tell(self, offset: int, value: Any, error: BaseException | None) -> None:
        """Tell it, and keep nothing of it.

        That the batch is over may be read much later, when a caller waits for the next call.
        """
        call, self.calls[offset], self.items[offset] = self.calls[offset], None, None
        if call is not None:
            self.outcomes.append((call, value, error))

    def abandon(self, error: BaseException) -> None:
        """What was not reported yet never will be."""
        for at, call in enumerate(self.calls):
            if call is not None:
                self._tell(at, None, error)
        self.done = self.size
