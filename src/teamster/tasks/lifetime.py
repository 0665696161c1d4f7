# SPDX-License-Identifier: BSD-3-Clause
"""The pools that are open: ended before the interpreter comes down, disowned in a forked copy of the program."""

from __future__ import annotations

import atexit
import os
import weakref
from typing import Protocol


class Ending(Protocol):
    """What is ended here: a pool."""

    def _end(self, seconds: float, error: BaseException | None = None) -> None:
        """End all workers; calls under way fail with `error`."""

    def _disown(self) -> None:
        """The workers are another process's."""


open_pools: weakref.WeakSet[Ending] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """Later than this, what a pool needs to end is no longer there.

    Daemon threads may still be waiting in a call. What they get says nothing on stderr, as if they had been stopped in it.
    """
    for pool in list(open_pools):
        pool._end(0.0, SystemExit("the program ends"))


def _disown_all() -> None:
    for pool in list(open_pools):
        pool._disown()
    open_pools.clear()


os.register_at_fork(after_in_child=_disown_all)
