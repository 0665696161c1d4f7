# SPDX-License-Identifier: BSD-3-Clause
"""Requests that wait for a replica: the earliest deadline first, those of one key together."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import count
from typing import Any

from teamster.serve.request import Request

_LATE = 1 << 62  # a deadline that never comes


class Waiting:
    """A queue of requests.

    Attributes:
        rows: that wait.

    Example:
        >>> waiting = Waiting()
        >>> for deadline in (30, 10, None):
        ...     waiting.add(Request(deadline, repr, print, deadline_ns=deadline))
        >>> [request.value for request in waiting.take(2)], waiting.rows
        ([10, 30], 1)
    """

    def __init__(self) -> None:
        self._lines: dict[Any, _Line] = {}
        self._number = count()
        self.rows = 0

    def __len__(self) -> int:
        return sum(len(line.heap) for line in self._lines.values())

    def __iter__(self) -> Iterator[Request]:
        for line in self._lines.values():
            for _, _, request in line.heap:
                yield request

    def add(self, request: Request) -> None:
        """One more."""
        line = self._lines.get(request.key)
        if line is None:
            line = self._lines[request.key] = _Line()
        deadline = _LATE if request.deadline_ns is None else request.deadline_ns
        heapq.heappush(line.heap, (deadline, next(self._number), request))
        line.rows += request.rows
        self.rows += request.rows

    def next_rows(self) -> int:
        """Of the key that is next."""
        return self._next()[1].rows if self._lines else 0

    def take(self, most: int) -> list[Request]:
        """The next of one key: at most so many rows, and at least one request."""
        if not self._lines:
            return []
        key, line = self._next()
        taken: list[Request] = []
        rows = 0
        while line.heap and (not taken or rows + line.heap[0][2].rows <= most):
            request = heapq.heappop(line.heap)[2]
            taken.append(request)
            rows += request.rows
        self._lower(key, line, rows)
        return taken

    def drop_gone(self) -> None:
        """Forget those for whose answer nobody waits."""
        for key, line in list(self._lines.items()):
            gone = sum(each[2].rows for each in line.heap if each[2].is_gone)
            if gone:
                line.heap = [each for each in line.heap if not each[2].is_gone]
                heapq.heapify(line.heap)
                self._lower(key, line, gone)

    def _lower(self, key: Any, line: _Line, rows: int) -> None:
        line.rows -= rows
        self.rows -= rows
        if not line.heap:
            del self._lines[key]

    def _next(self) -> tuple[Any, _Line]:
        if len(self._lines) == 1:
            return next(iter(self._lines.items()))
        return min(self._lines.items(), key=lambda each: each[1].heap[0][:2])


class _Line:
    """The requests of one key."""

    __slots__ = ("heap", "rows")

    def __init__(self) -> None:
        self.heap: list[tuple[int, int, Request]] = []
        self.rows = 0
