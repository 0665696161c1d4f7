# SPDX-License-Identifier: BSD-3-Clause
"""When a call has lasted so long that others may want to look at it (socket.py is loaded then)."""

from __future__ import annotations

import sys
from time import perf_counter

from teamster.tasks.monitor import registry
from teamster.tasks.monitor.registry import Ending, open_pools

PATIENCE_S = 1.0
"""Calls shorter than this are over before a user could look."""


class Patience:
    """Opens the window of this program when something has lasted for a while."""

    __slots__ = ("_until_s",)

    def __init__(self) -> None:
        self._until_s = perf_counter() + PATIENCE_S

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return bool(self._until_s)

    def left_s(self) -> float | None:
        """Seconds until the next look; None when it is over."""
        return max(0.0, self._until_s - perf_counter()) if self._until_s else None

    def ends(self) -> bool:
        """Whether it ends now: once, and then others can look."""
        if not self._until_s or perf_counter() < self._until_s:
            return False
        from teamster.tasks.monitor.socket import announce

        self._until_s = 0.0
        announce()
        return True


def take_leave(pool: Ending) -> None:
    """A pool has ended; with the last one nothing is left to look at."""
    open_pools.discard(pool)
    retire_if_idle()


def retire_if_idle() -> None:
    """Close the window when nothing is left to look at."""
    window = sys.modules.get("teamster.tasks.monitor.socket")
    if window is not None and not open_pools and not registry.spawned():
        window.retire()


def shut_before(start_method: str | None) -> None:
    """Close the window where the program forks its workers, which is safe without threads only.

    It opens no more.
    """
    if start_method == "fork":
        from teamster.tasks.monitor.socket import shut

        shut()
