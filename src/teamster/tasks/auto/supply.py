# SPDX-License-Identifier: BSD-3-Clause
"""Where the items that run in the caller come from, and where their results go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol


class Supply(Protocol):
    """Where items come from."""

    pulled: int
    pull_ns: int

    def next_item(self) -> list[Any]:
        """At most one."""

    def next_chunk(self, count: int) -> tuple[Iterator[Any], int, Iterator[Any] | None]:
        """At most so many as an iterator, how many, and tickets for what is not pulled yet.

        With tickets, `settle` and `finish` are to be called.
        """

    def settle(self) -> int:
        """How many items the iterator of a chunk and all before it have pulled."""

    def finish(self, error: BaseException | None) -> None:
        """The iterator of a chunk ended before its time."""

    def push_back(self, items: list[Any]) -> None:
        """These were not run."""


class Delivery(Protocol):
    """Where results go."""

    def take_here(self, first: int, values: list[Any]) -> None:
        """Results of consecutive items."""

    def list_here(self, first: int) -> list[Any] | None:
        """A list to which results from `first` on may be added, if nothing else adds to it.

        `took_here` is told how many were.
        """

    def took_here(self, count: int) -> None:
        """So many results were added to that list."""

    def fail_here(self, index: int, error: BaseException) -> bool:
        """What one item raised; returns whether the others are still wanted."""
