# SPDX-License-Identifier: BSD-3-Clause
"""The pools that are open.

They are ended before the interpreter comes down, and disowned in a forked copy of the program.
"""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from teamster import lifetime
from teamster.errors import TeamsterError


class Finishing(Protocol):
    """Calls that a pool was given."""

    def finish(self) -> None:
        """Wait until all are done."""


class Ending(Protocol):
    """What is ended here: a pool."""

    @property
    def _calls(self) -> Finishing:
        """What it was given."""

    def _end(self, seconds: float, error: BaseException | None = None) -> None:
        """End all workers; calls under way fail with `error`."""

    def _disown(self) -> None:
        """The workers are another process's."""


open_pools: weakref.WeakSet[Ending] = weakref.WeakSet()

spawned: Callable[[], list[dict[str, Any]]] = list
"""Tells what the processes do that `ts.spawn` has started; set at the start of the first."""


def see_to_the_end() -> None:
    """Have pools ended with the program, and disowned in a forked copy of it.

    Called before a pool starts anything.
    """
    lifetime.end_at_exit(_end_all)
    lifetime.in_forked_copy(_disown_all)


def _end_all() -> None:
    """Later than this, what a pool needs to end is no longer there.

    Daemon threads may still be waiting in a call. What they get says nothing on stderr, as if they
    had been stopped in it.
    """
    for pool in list(open_pools):
        pool._end(0.0, SystemExit("the program ends"))


def finish_calls_at_exit() -> None:
    """Have the program finish the calls that are open when its main thread ends.

    Both standard executors do so, too.
    """
    lifetime.finish_at_exit(_finish_all)


def _finish_all() -> None:
    if getattr(sys, "last_type", None) is KeyboardInterrupt:
        # The user wants the program to end, and not what it was about to do
        return
    for pool in list(open_pools):
        with contextlib.suppress(TeamsterError):  # another thread ends it at this moment
            pool._calls.finish()


def _disown_all() -> None:
    for pool in list(open_pools):
        pool._disown()
    open_pools.clear()
