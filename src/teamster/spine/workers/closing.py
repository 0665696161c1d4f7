# SPDX-License-Identifier: BSD-3-Clause
"""The end of a team: any thread may ask for it; it comes when none reads from its backend."""

from __future__ import annotations

import threading

from teamster.spine.workers.backend import Backend
from teamster.spine.workers.waiting import Waiters


class Closing:
    """Ends the backend of one team, once.

    Args:
        lock: the team's.
        waiters: the callers that wait for the team, and which of them reads from the backend.
        backend: what is ended.
    """

    def __init__(self, lock: threading.RLock, waiters: Waiters, backend: Backend) -> None:
        self._lock = lock
        self._waiters = waiters
        self._backend = backend
        self._left = threading.Condition(lock)
        self._over = threading.Event()
        self._seconds: float | None = None

    def ask(self, seconds: float) -> None:
        """Have idle workers end by themselves within so many seconds, and then the rest."""
        self._seconds = seconds

    @property
    def asked(self) -> bool:
        """Whether that was asked for, and has not begun."""
        return self._seconds is not None

    def leader_has_left(self) -> None:
        """No thread reads from the backend now; the lock is held."""
        self._left.notify_all()

    def end_if_asked(self) -> bool:
        """Do it, if it was asked for, as soon as no thread reads from the backend.

        Returns whether it was done here.
        """
        if self._seconds is None:
            return False
        with self._lock:
            seconds, self._seconds = self._seconds, None
            while self._waiters.leader is not None and seconds is not None:
                self._waiters.wake(self._waiters.leader)
                self._left.wait(1.0)
        if seconds is None:  # another thread was faster
            return False
        try:
            self._backend.close(seconds)
        finally:
            self._over.set()
        return True

    def wait(self) -> None:
        """Until it is done, by whatever thread."""
        self._over.wait()
