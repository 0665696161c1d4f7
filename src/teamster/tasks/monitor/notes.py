# SPDX-License-Identifier: BSD-3-Clause
"""What pools tell a recording.

That is their plans and reports, at the end of the recording or of the pool.
"""

from __future__ import annotations

import os
import weakref
from functools import partial
from typing import TYPE_CHECKING, Protocol

from teamster.spine.trace.report import Report, WallClock
from teamster.spine.trace.spans import current_recorder
from teamster.spine.workers.worker_info import is_inside_worker
from teamster.tasks.teams import Teams

if TYPE_CHECKING:
    from teamster.spine.trace.timeline import JobNote


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
