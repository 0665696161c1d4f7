# SPDX-License-Identifier: BSD-3-Clause
"""The input of a map call: pulled in the caller's thread and closed there."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from time import perf_counter_ns
from typing import Any

_SLOW_INPUT_NS = 1_000_000
_STEADY = (range, tuple)


class Source:
    """The input: pulled in the caller's thread, closed there."""

    def __init__(self, iterables: tuple[Iterable[Any], ...]) -> None:
        self.total = self.length(iterables)
        self._iterator: Iterator[Any] = iter(iterables[0]) if len(iterables) == 1 else zip(*iterables, strict=False)
        self._originals = iterables
        self._returned: deque[Any] = deque()  # pulled, and not run after all
        self._at_end = False
        self.pulled = 0
        self.slow = False  # the last pull took its time, or was the first and tells nothing of the next
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

    def next_items(self, count: int) -> list[Any]:
        """At most `count` items; fewer at the end, or before an error of the input, which is kept for later."""
        if self._returned:
            return self._take_returned(count)
        items: list[Any] = []
        began = perf_counter_ns()
        try:
            items.extend(islice(self._iterator, count))
        except Exception as error:
            self.error = error
        if len(items) < count:
            self._at_end = True
        self.slow = self.total is None and (self.pulled == 0 or perf_counter_ns() - began > _SLOW_INPUT_NS)
        self.pulled += len(items)
        return items

    def next_chunk(self, count: int) -> tuple[Iterator[Any], int]:
        """At most `count` items as an iterator of C, and how many: without a copy where the input cannot change."""
        left = self.remaining
        if self._returned or self._at_end or left is None or type(self._originals[0]) not in _STEADY or len(self._originals) > 1:
            items = self.next_items(count)
            return iter(items), len(items)
        count = min(count, left)
        self.pulled += count
        self._at_end = count == left
        return islice(self._iterator, count), count

    def _take_returned(self, count: int) -> list[Any]:
        items = [self._returned.popleft() for _ in range(min(count, len(self._returned)))]
        self.pulled += len(items)
        return items

    def push_back(self, items: list[Any]) -> None:
        """These, the last ones pulled, come again."""
        self._returned.extendleft(reversed(items))
        self.pulled -= len(items)

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
