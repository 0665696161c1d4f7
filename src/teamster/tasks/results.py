# SPDX-License-Identifier: BSD-3-Clause
"""Results of one call, put back into the order of their items, or as they come.

They are bounded where the caller takes them one by one.

::

    take(first, values) --> ready, or parked until those  --> pop(), or the list of all
                            before are there
                            may_pull: whether more may be asked for, while so much waits
"""

from __future__ import annotations

from collections import deque
from typing import Any

_SMALL = (int, float, bool, type(None))
_FAR_ITEMS = 1 << 16  # results that wait for a consumer; a list of more is no stream
_FAR_BYTES = 256 << 20
"""How far ahead of a slow item others may run, while the consumer waits for it."""


class Raise:
    """Stands in the results for an item with an exception that is to be raised in its turn."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Results:
    """What has come of a call's items so far.

    Args:
        ordered: whether results come in input order.
        lazy: whether the caller takes them one by one, so that what waits is bounded; else all of
            them are one list.

    Attributes:
        ready: in the order in which they are wanted, and not taken.
        reported: how many have come.
        next: the index of the first that has not, where they are ordered.

    Example:
        >>> results = Results(ordered=True, lazy=True)
        >>> results.take(1, ["b"])
        >>> list(results.ready)
        []
        >>> results.take(0, ["a"])
        >>> results.pop(), results.pop()
        ('a', 'b')
    """

    __slots__ = ("_bytes", "_lazy", "_ordered", "_parked", "next", "ready", "reported", "taken")

    def __init__(self, *, ordered: bool, lazy: bool) -> None:
        self._ordered = ordered
        self._lazy = lazy
        self.ready: deque[Any] | list[Any] = deque() if lazy else []
        self._parked: dict[int, list[Any]] = {}  # first index -> results that wait for their turn
        self.next = self.reported = self.taken = 0
        self._bytes = 0  # of what waits and is visibly large

    def take(self, first: int, values: list[Any]) -> None:
        """The results of consecutive items."""
        self.reported += len(values)
        if not self._ordered or first == self.next:
            self.ready.extend(values)
            self.next = first + len(values)
            while self._parked and (parked := self._parked.pop(self.next, None)) is not None:
                self.ready.extend(parked)
                self.next += len(parked)
        else:
            self._parked[first] = values
        if self._lazy and type(values[0]) not in _SMALL:
            self._bytes += _large_bytes(values)

    def list_from(self, first: int) -> list[Any] | None:
        """The list to which results from `first` on may be added as they come.

        There is one if `first` is the next index; `added` tells how many were added.
        """
        return self.ready if isinstance(self.ready, list) and first == self.next else None

    def added(self, count: int) -> None:
        """So many were added to that list."""
        self.reported += count
        self.next += count

    def pop(self) -> Any:
        """The next one.

        Raises:
            BaseException: what its item has raised, where that is to be raised.
        """
        assert isinstance(self.ready, deque)
        value = self.ready.popleft()
        self.taken += 1
        if type(value) is Raise:
            raise value.error
        if self._bytes:
            self._bytes -= _large_bytes([value])
        return value

    def may_pull(self, pulled: int, under_way: int) -> bool:
        """Whether more items may be begun.

        Args:
            pulled: how many were.
            under_way: how many may be, while the consumer has something to take.
        """
        if self.ready:
            return pulled - self.taken < under_way
        return self.reported - self.taken < _FAR_ITEMS and self._bytes < _FAR_BYTES


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
