# SPDX-License-Identifier: BSD-3-Clause
"""A thread that stays, and takes what is put into its inbox: a worker, a replica's thread.

A thread that is new for each job loses half of the speed to warming up: caches, native threads,
what torch keeps for each thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

Take = Callable[[], Any]
"""Waits for what is put next; None: there is nothing more."""


class InboxThread:
    """A daemon thread, from `start` until it has what was put before `end`.

    Args:
        name: of the thread.
        work: called in it with a `Take`. A method would keep its object alive as long as the thread
            lives.
        *arguments: for `work`, after the `Take`.
    """

    __slots__ = ("_inbox", "_thread", "put")

    def __init__(self, name: str, work: Callable[..., object], *arguments: Any) -> None:
        self._inbox: SimpleQueue[Any] = SimpleQueue()
        self.put = self._inbox.put
        """Give it something; never None."""
        self._thread = threading.Thread(
            target=work, args=(self._inbox.get, *arguments), name=name, daemon=True
        )

    def start(self) -> None:
        """Begin.

        Raises:
            RuntimeError: the system gives no more threads.
        """
        self._thread.start()

    def is_current(self) -> bool:
        """Whether this is the calling thread."""
        return self._thread is threading.current_thread()

    def end(self) -> None:
        """Let it end after what it has."""
        self._inbox.put(None)

    def join(self, seconds: float) -> None:
        """Wait for its end, at most so long; not for the calling thread's own."""
        if not self.is_current():
            self._thread.join(max(0.0, seconds))
