# SPDX-License-Identifier: BSD-3-Clause
"""`select.poll`, and what stands in for it where eventlet has taken it away."""

from __future__ import annotations

import select
from typing import Protocol

READABLE, WRITABLE = 0x001, 0x004  # as the kernel numbers them for poll and epoll


class Polling(Protocol):
    """What is used of `select.poll`."""

    def register(self, descriptor: int, mask: int) -> None:
        """Look at one more."""

    def poll(self, milliseconds: float | None = None) -> list[tuple[int, int]]:
        """Wait until one is ready."""


class SelectedSet:
    """The same by `select.select`."""

    def __init__(self) -> None:
        self._masks: dict[int, int] = {}

    def register(self, descriptor: int, mask: int) -> None:
        """Look at one more."""
        self._masks[descriptor] = mask

    def poll(self, milliseconds: float | None = None) -> list[tuple[int, int]]:
        """Wait until one is ready."""
        writers = [descriptor for descriptor, mask in self._masks.items() if mask & WRITABLE]
        seconds = None if milliseconds is None else milliseconds / 1000
        readable, writable, _ = select.select(list(self._masks), writers, [], seconds)
        return [
            (each, READABLE * (each in readable) | WRITABLE * (each in writable))
            for each in {*readable, *writable}
        ]


def make_poll() -> Polling:
    """A set of descriptors to poll."""
    return select.poll() if hasattr(select, "poll") else SelectedSet()
