# SPDX-License-Identifier: BSD-3-Clause
"""How fast a job is, from what it answered one look after another.

That is items a second, the share of busy workers, and the time left.

::

    answers at 2 Hz:  . . . . . . . . . . . . . . . . . .
                                      |------ 5 s ------|  many items: the last seconds tell
                      |------------- up to 60 s --------|  few items: as far back as it takes
                                                                      to see five of them
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from teamster.cli.top.answers import Answer, CallSeen, PoolSeen

WINDOW_S = 5.0
"""How far back rates look when enough has happened since."""

_MEMORY_S = 60.0  # a minute, as `top` has it
_ENOUGH_ITEMS = 5  # fewer make a rate that jumps
_SAME_START_S = 0.1  # two looks place one start so far apart


@dataclass(frozen=True, slots=True)
class CallView:
    """A call and its speed.

    Attributes:
        seen: the call.
        items_per_s: items a second, lately.
        left_s: seconds until it is done at that speed; None when it is not known.
    """

    seen: CallSeen
    items_per_s: float
    left_s: float | None


@dataclass(frozen=True, slots=True)
class PoolView:
    """A pool and its speed.

    Attributes:
        seen: the pool.
        items_per_s: items a second, lately.
        used: share of its workers that ran something, lately; 0 to 1.
        calls: under way.
    """

    seen: PoolSeen
    items_per_s: float
    used: float
    calls: tuple[CallView, ...]


class Pace:
    """Items a second of something that counts.

    Example:
        >>> pace = Pace()
        >>> for second in range(4):
        ...     pace.add(second, 10 * second)
        >>> pace.per_s()
        10.0
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def add(self, at_s: float, count: int) -> None:
        """Note a count; one that is less than the last one belongs to something new.

        Args:
            at_s: when, in seconds.
            count: how many.
        """
        if self._seen and (count < self._seen[-1][1] or at_s < self._seen[-1][0]):
            self._seen.clear()
        self._seen.append((at_s, count))
        while self._seen[0][0] < at_s - _MEMORY_S:
            self._seen.popleft()

    def per_s(self) -> float | None:
        """The rate, lately.

        Returns:
            A number a second; None after fewer than two looks.
        """
        if len(self._seen) < 2:
            return None
        (oldest_s, least), (newest_s, most) = self._seen[0], self._seen[-1]
        for at_s, count in reversed(self._seen):
            if newest_s - at_s >= WINDOW_S and most - count >= _ENOUGH_ITEMS:
                oldest_s, least = at_s, count
                break
        return (most - least) / (newest_s - oldest_s) if newest_s > oldest_s else None


class History:
    """What one job's answers say together.

    Example:
        >>> from teamster.cli.top.answers import read_answer
        >>> history = History()
        >>> history.add(read_answer(b'{"version": 1, "pools": [{"title": "thread(2)"}]}'))
        >>> history.pools[0].seen.title
        'thread(2)'
    """

    def __init__(self) -> None:
        self.pools: tuple[PoolView, ...] = ()
        self._pools: dict[str, _PoolHistory] = {}

    def add(self, answer: Answer) -> None:
        """Note what came.

        Args:
            answer: the next one.
        """
        self._pools = {pool.name: self._history_of(pool) for pool in answer.pools}
        self.pools = tuple(self._pools[pool.name].add(answer.now_s, pool) for pool in answer.pools)

    def _history_of(self, pool: PoolSeen) -> _PoolHistory:
        history = self._pools.get(pool.name)
        if history is None or pool.items < history.items:
            # Another pool, in the place of one that was closed
            return _PoolHistory()
        return history


class _PoolHistory:
    def __init__(self) -> None:
        self._pace = Pace()
        self._used: deque[tuple[float, float]] = deque()
        self._calls: list[_CallHistory] = []
        self.items = 0

    def add(self, now_s: float, pool: PoolSeen) -> PoolView:
        self.items = pool.items
        calls = tuple(self._add_calls(now_s, pool.calls))
        self._pace.add(now_s, pool.items)
        rate = self._pace.per_s()
        if rate is None:
            rate = sum(call.items_per_s for call in calls)
        return PoolView(pool, rate, self._add_used(now_s, pool), calls)

    def _add_used(self, now_s: float, pool: PoolSeen) -> float:
        """Mean over the last seconds of the share that runs."""
        # "auto" keeps the workers that it has tried; those of the kind that it has chosen are the
        # ones to be used.
        there = [worker for worker in pool.workers if worker.state != "absent"]
        chosen = [
            worker for worker in there if worker.kind == pool.title.partition("(")[0]
        ] or there
        share = min(1.0, sum(worker.works for worker in there) / len(chosen)) if there else 0.0
        self._used.append((now_s, share))
        while self._used[0][0] < now_s - WINDOW_S:
            self._used.popleft()
        return sum(share for _, share in self._used) / len(self._used)

    def _add_calls(self, now_s: float, calls: tuple[CallSeen, ...]) -> Iterator[CallView]:
        before, self._calls = self._calls, []
        for call in calls:
            start_s = now_s - call.seconds
            history = next((each for each in before if each.is_of(call, start_s)), None)
            if history is None:
                history = _CallHistory(call.function, start_s)
            else:
                before.remove(history)
            self._calls.append(history)
            history.pace.add(now_s, call.done)
            yield _view(call, history.pace.per_s())


class _CallHistory:
    """A call has no name: it is known again by what it calls and by when it began."""

    def __init__(self, function: str, start_s: float) -> None:
        self._function = function
        self._start_s = start_s
        self.pace = Pace()

    def is_of(self, call: CallSeen, start_s: float) -> bool:
        return call.function == self._function and abs(start_s - self._start_s) < _SAME_START_S


def _view(call: CallSeen, rate: float | None) -> CallView:
    """After the first look, the mean so far has to do."""
    if rate is None:
        rate = call.done / call.seconds if call.seconds > 0 else 0.0
    left_s = None
    if call.total is not None and rate > 0:
        left_s = max(0, call.total - call.done) / rate
    return CallView(call, rate, left_s)
