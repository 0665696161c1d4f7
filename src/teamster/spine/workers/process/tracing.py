# SPDX-License-Identifier: BSD-3-Clause
"""What a process worker records.

It writes into the ring behind its scoreboard, while its parent asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from teamster.spine.trace import spans
from teamster.spine.trace.ring import Ring
from teamster.spine.workers.scoreboard import TRACING, Scoreboard


class WorkerRecorder:
    """Writes where the parent reads; all threads of the worker share its ring."""

    def __init__(self, scoreboard: Scoreboard) -> None:
        self._scoreboard = scoreboard
        self._ring: Ring | None = None
        self._on = self._refused = False

    def ring_if_asked(self) -> Ring | None:
        """The ring, while the parent records; asked before each batch."""
        if (on := bool(self._scoreboard.words[TRACING])) != self._on:
            self._on = on
            try:
                if on:
                    self.ring()
                spans.install(self if on else None)
            except OSError:  # no memory for it: the work is more than its picture
                self._refused = True
        return self.ring() if on and not self._refused else None

    def ring(self) -> Ring:
        """That of this worker."""
        if self._ring is None:
            self._ring = Ring(self._scoreboard.ring_memory())
        return self._ring

    def mark(self, text: str, lane: str) -> None:
        """Marks are the parent's."""

    def leave_thread(self) -> None:
        """Threads of a task are in the worker's lane."""

    def attend(self, key: int, note: Callable[[int], Any]) -> None:
        """A pool inside a task is not on the parent's timeline."""

    def follow(self, remote: spans.Remote) -> None:
        """Nor are its workers."""

    def leave(self, remote: spans.Remote) -> None:
        """Nor are its workers."""
