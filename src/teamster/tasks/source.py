# SPDX-License-Identifier: BSD-3-Clause
"""The input of a map call: pulled in the caller's thread and closed there.

::

    next_items --> items pulled ahead, for workers: what their input only lends is copied (lent.py)
    next_chunk --> items for the caller: of a container some at once, of any other input one after
                   the other, as they are run
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from operator import itemgetter
from time import perf_counter_ns
from typing import Any

from teamster.tasks.lent import Loan, has_groups, keeps_its_items, own_copy, refusal, with_lists

_SLOW_INPUT_NS = 1_000_000  # an input that waits for something: it is not pulled ahead
_FAST_INPUT_NS = 20_000  # an input that only hands over what is there
_STEADY = (range, tuple)
_LOOKS = 3  # first items: what lends one lends the next, too
_NOTHING = object()
_second = itemgetter(1)


class Source:
    """The input: pulled in the caller's thread, closed there."""

    def __init__(self, iterables: tuple[Iterable[Any], ...]) -> None:
        self.total = self.length(iterables)
        self._iterator: Iterator[Any] = (
            iter(iterables[0]) if len(iterables) == 1 else zip(*iterables, strict=False)
        )
        self._originals = iterables
        self._returned: deque[Any] = deque()  # pulled, and not run after all
        self._at_end = False
        self._keeps = all(map(keeps_its_items, iterables))
        self._looks = 0 if self._keeps else _LOOKS  # at the first items, whether they are only lent
        self._latest: Any = _NOTHING  # the item to look at
        self._lent = ""  # what becomes of an item when the next one is taken
        self._own: Callable[[Any], Any] | None = None  # makes an item that is lent one that is not
        # Counts the items of a chunk that the caller takes one by one
        self._counter = itertools.count()
        self._asked = 0  # how often it was, which counts, too
        self.pulled = 0
        self.pull_ns = 0  # for an item, lately
        # The last pull took its time, or was the first and tells nothing of the next
        self.slow = False
        self.error: BaseException | None = None  # raised by the input itself

    @staticmethod
    def length(iterables: tuple[Iterable[Any], ...]) -> int | None:
        """How many items there will be, None where an iterable does not know."""
        try:
            return min(len(iterable) for iterable in iterables)  # type: ignore[arg-type]
        except TypeError:
            return None

    def peek(self) -> Any:
        """The first item, None where it cannot be seen without pulling it."""
        first = self._originals[0] if len(self._originals) == 1 else None
        return first[0] if isinstance(first, (list, tuple, range)) and first else None

    @property
    def stays(self) -> str:
        """Why its items have to be run one after the other; empty where they need not."""
        return (
            f"its input {self._lent} when the next item is taken"
            if self._lent and self._own is None
            else ""
        )

    # --- for workers ------------------------------------------------------------------------------

    def next_items(self, count: int) -> list[Any]:
        """At most `count` items to be run side by side.

        Fewer at the end, or before an error, which is kept for later.
        """
        if self._returned:
            return self._take_returned(count)
        items = self._look_at_the_first() if self._looks else []
        if self.stays:
            self.error, self._at_end = refusal(self._lent), True
            self.pulled -= len(items)
            return []
        if len(items) > count:
            self.push_back(items[count:])
            return items[:count]
        slow = self.slow and bool(items)
        if len(items) < count and not self._at_end:
            items += self._pull(count - len(items), self._own)
            self.slow |= slow
        return items

    def _look_at_the_first(self) -> list[Any]:
        """Some of them together, since each can only be judged by the next."""
        items: list[Any] = []
        slow = False
        while self._looks and not self._at_end:
            items += self._pull_looking(items)
            slow |= self.slow
        self.slow = slow
        if items and self._own is not None:
            items[-1] = self._own(items[-1])
        return items

    def _pull_looking(self, before: list[Any]) -> list[Any]:
        """One item, with a look at the one before it; none at the end.

        The one before is the last of `before` if it is for workers, too.
        """
        # As it is now: the code that ran it may have changed it
        loan = Loan(self._latest) if self._latest is not _NOTHING else None
        items = self._pull(1)
        if not items:
            return items
        item = self._latest = items[0]
        self._looks -= 1
        if has_groups(item):
            self._lent, self._own, self._looks = "takes back the group that it gave", with_lists, 0
        elif loan is not None and (why := loan.change()):
            self._lent, self._own, self._looks = why, own_copy if loan.has_copy else None, 0
            if before and self._own is not None:
                before[-1] = loan.copy()
        elif not Loan(item).matters:
            self._looks = 0
        if not self._looks:
            self._latest = _NOTHING
        return items

    def _pull(self, count: int, own: Callable[[Any], Any] | None = None) -> list[Any]:
        items: list[Any] = []
        began = perf_counter_ns()
        try:
            pending = islice(self._iterator, count)
            items.extend(pending if own is None else map(own, pending))
        except Exception as error:
            self.error = error
        took = perf_counter_ns() - began
        if len(items) < count:
            self._at_end = True
        self.slow = self.total is None and (self.pulled == 0 or took > _SLOW_INPUT_NS)
        self.pulled += len(items)
        self.pull_ns = took // max(1, len(items))
        return items

    def _take_returned(self, count: int) -> list[Any]:
        items = [self._returned.popleft() for _ in range(min(count, len(self._returned)))]
        self.pulled += len(items)
        return items

    def push_back(self, items: list[Any]) -> None:
        """These, the last ones pulled, come again."""
        self._returned.extendleft(reversed(items))
        self.pulled -= len(items)

    # --- for the caller ---------------------------------------------------------------------------

    def next_item(self) -> list[Any]:
        """One item, to be run before the next is taken; none at the end."""
        if self._returned:
            return self._take_returned(1)
        return self._pull_looking([]) if self._looks else self._pull(1)

    def next_chunk(self, count: int) -> tuple[Iterator[Any], int, Iterator[Any] | None]:
        """At most `count` items as an iterator of C, how many, and an iterator of tickets for them.

        There are tickets if the items are not pulled yet. Those of a container are, without a copy
        where it cannot change. Other inputs are pulled as the iterator is, as long as there are
        tickets: `settle` and `finish` are to follow.
        """
        if self._returned or self._at_end or self._keeps:
            return self._chunk_of_container(count)
        if count == 1 or self._looks or self.pull_ns > _FAST_INPUT_NS:
            # What an input takes is no time of its items
            items = self.next_item()
            return iter(items), len(items), None
        self._counter, self._asked, tickets = itertools.count(self.pulled), 0, iter(range(count))
        return (
            map(_second, zip(tickets, self._iterator, self._counter, strict=False)),
            count,
            tickets,
        )

    def _chunk_of_container(self, count: int) -> tuple[Iterator[Any], int, None]:
        left = self.remaining
        if (
            self._returned
            or self._at_end
            or left is None
            or type(self._originals[0]) not in _STEADY
            or len(self._originals) > 1
        ):
            items = (
                self._take_returned(count)
                if self._returned
                else []
                if self._at_end
                else self._pull(count)
            )
            return iter(items), len(items), None
        count = min(count, left)
        self.pulled += count
        self._at_end = count == left
        return islice(self._iterator, count), count, None

    def settle(self) -> int:
        """How many items were pulled, by the iterator of the last chunk, too."""
        self.pulled = next(self._counter) - self._asked
        self._asked += 1
        return self.pulled

    def finish(self, error: BaseException | None) -> None:
        """The iterator of the last chunk ended before its time.

        This is the end of the input, or its error.
        """
        self._at_end, self.error = True, error

    @property
    def is_doubtful(self) -> bool:
        """Whether its items may be lent, and a look at the next one could spoil the one before."""
        return self._looks > 0 and (self._latest is _NOTHING or not Loan(self._latest).has_copy)

    @property
    def exhausted(self) -> bool:
        """Whether nothing more will come."""
        return self._at_end and not self._returned

    @property
    def remaining(self) -> int | None:
        """Items still to be pulled, None when the input does not know its length."""
        return None if self.total is None else max(0, self.total - self.pulled)

    def close(self) -> None:
        """Close generators, so that their ``finally`` runs here and now."""
        self._at_end = True
        self._returned.clear()
        for original in self._originals:
            close = getattr(original, "close", None)
            if close is not None and hasattr(original, "send"):
                close()
