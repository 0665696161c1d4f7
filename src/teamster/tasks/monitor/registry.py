# SPDX-License-Identifier: BSD-3-Clause
"""The pools that are open: ended with the program, and asked by recordings for their reports."""

from __future__ import annotations

import contextlib
import os
import sys
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from teamster import lifetime
from teamster.errors import TeamsterError
from teamster.spine.trace.report import Report, WallClock
from teamster.spine.trace.spans import current_recorder
from teamster.spine.workers.worker_info import is_inside_worker
from teamster.tasks.teams import Teams

if TYPE_CHECKING:
    from teamster.spine.trace.timeline import JobNote


_ends = False


def program_ends() -> bool:
    """Whether the program comes down: pools are closed, and what is under way in them fails.

    Example:
        >>> program_ends()
        False
    """
    return _ends


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
_read_ahead: weakref.WeakSet[Ending] = weakref.WeakSet()  # of them, what nobody may ask for

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
    had been stopped in it; of a class derived from `SystemExit` that would not be true.
    """
    global _ends
    _ends = True
    for pool in list(open_pools):
        pool._end(0.0, SystemExit("the program ends"))


def finish_calls_at_exit() -> None:
    """Have the program finish the calls that are open when its main thread ends.

    Both standard executors do so, too.
    """
    lifetime.finish_at_exit(_finish_all)


def do_not_finish(pool: Ending) -> None:
    """What is open in this pool at the end of the program is read ahead, and of no use then."""
    _read_ahead.add(pool)


def _finish_all() -> None:
    if getattr(sys, "last_type", None) is KeyboardInterrupt:
        # The user wants the program to end, and not what it was about to do
        return
    for pool in set(open_pools) - set(_read_ahead):
        with contextlib.suppress(TeamsterError):  # another thread ends it at this moment
            pool._calls.finish()


def _disown_all() -> None:
    for pool in list(open_pools):
        pool._disown()
    open_pools.clear()


class Reporting(Protocol):
    """A pool."""

    _teams: Teams
    _clock: WallClock

    def report(self) -> Report:
        """What it has done so far."""


def record_if_asked() -> None:
    """Record the whole program, if the environment says so; workers have the same environment.

    Raises:
        UsageError: it names a file that cannot be written.
    """
    if "TEAMSTER_TRACE" in os.environ and not is_inside_worker():
        from teamster.spine.trace.recording import record_program

        record_program()


def attend(pool: Reporting) -> None:
    """A call begins: have a recording that is under way ask for the report at its end."""
    if (recorder := current_recorder()) is not None:
        recorder.attend(pool._teams.number, partial(_ask, weakref.ref(pool)))


def leave(pool: Reporting) -> None:
    """A pool ends: its last report is what a recording shows."""
    if (recorder := current_recorder()) is not None and (report := pool.report()).wall_s:
        note, clock = report.as_note(), pool._clock
        recorder.attend(
            pool._teams.number, lambda begin_ns: note if clock.ran_since(begin_ns / 1e9) else None
        )


def _ask(weak: weakref.ref[Reporting], begin_ns: int) -> JobNote | None:
    pool = weak()
    return (
        pool.report().as_note()
        if pool is not None and pool._clock.ran_since(begin_ns / 1e9)
        else None
    )
