# SPDX-License-Identifier: BSD-3-Clause
"""The pools that are open: ended before the interpreter comes down, disowned in a forked copy of the program."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol

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
"""Tells what the processes do that `ts.spawn` has started; set by who starts the first."""


@atexit.register
def _end_all() -> None:
    """Later than this, what a pool needs to end is no longer there.

    Daemon threads may still be waiting in a call. What they get says nothing on stderr, as if they had been stopped in it.
    """
    for pool in list(open_pools):
        pool._end(0.0, SystemExit("the program ends"))


_finishes_calls = False


def finish_calls_at_exit() -> None:
    """Have the program finish the calls that are open when its main thread ends, as both standard executors do.

    Not by `atexit`: thread pools that have not started all their workers could start none then.
    """
    global _finishes_calls
    if not _finishes_calls:
        _finishes_calls = True
        register = getattr(threading, "_register_atexit", atexit.register)  # where `concurrent.futures` registers the same
        with contextlib.suppress(RuntimeError):  # the program ends already, and this is one of its last acts
            register(_finish_all)


def _finish_all() -> None:
    if getattr(sys, "last_type", None) is KeyboardInterrupt:  # the user wants the program to end, and not what it was about to do
        return
    for pool in list(open_pools):
        with contextlib.suppress(TeamsterError):  # another thread ends it at this moment
            pool._calls.finish()


def _disown_all() -> None:
    for pool in list(open_pools):
        pool._disown()
    open_pools.clear()


os.register_at_fork(after_in_child=_disown_all)
