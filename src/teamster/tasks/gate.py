# SPDX-License-Identifier: BSD-3-Clause
"""The lock of a future, which becomes a condition only when a thread waits for it."""

from __future__ import annotations

import threading
from typing import Any


class Gate(type(threading.RLock())):  # type: ignore[misc]
    """A lock that is a condition as soon as a thread waits, at a fifth of the price till then.

    Example:
        >>> gate = Gate()
        >>> with gate:
        ...     gate.notify_all(), gate.wait(timeout=0.001)
        (None, False)
    """

    def __getattr__(self, name: str) -> Any:
        if name == "_whole":
            return self.__dict__.setdefault(name, threading.Condition(self))
        if name in ("wait", "wait_for", "notify"):
            return getattr(self._whole, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def notify_all(self) -> None:
        """Wake the threads that wait, if one ever did."""
        if "_whole" in self.__dict__:
            self._whole.notify_all()
