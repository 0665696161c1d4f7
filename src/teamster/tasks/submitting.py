# SPDX-License-Identifier: BSD-3-Clause
"""The calls that a pool was given one by one, on the pool's side.

Futures and their code are loaded by the first of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from teamster.spine.plan.plan import Plan
from teamster.spine.trace.report import WallClock
from teamster.spine.workers.job import CallOptions
from teamster.tasks.arguments import check_callable
from teamster.tasks.monitor.registry import Reporting, attend
from teamster.tasks.teams import Teams

if TYPE_CHECKING:  # futures cost a quarter of the time to a first result
    from concurrent.futures import Future

    from teamster.tasks.futures import Submitter


class ChoosesForCalls(Protocol):
    """What decides which workers run them."""

    @property
    def submitting(self) -> Plan:
        """A kind of workers, and how many."""


class Calls:
    """Of one pool.

    Args:
        teams: those of the pool.
        planner: says which workers run single calls.
        limits: retries, and the timeout of a call (s).
        clock: runs while calls are open.
    """

    def __init__(
        self,
        teams: Teams,
        planner: ChoosesForCalls,
        limits: tuple[int, float | None],
        clock: WallClock,
    ) -> None:
        self._teams = teams
        self._planner = planner
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._submitter: Submitter | None = None

    @property
    def workers(self) -> int:
        """How many run at once."""
        return self._planner.submitting.workers

    def submit(
        self,
        pool: Reporting,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        chunksize: int | None = None,
    ) -> Future[Any]:
        """Queue one call; `pool` lives as long as its future."""
        self._teams.check_open()
        attend(pool)
        check_callable(function)
        submitter = self._submitter or self._open()
        return submitter.submit(pool, function, arguments, keywords, chunksize)

    def _open(self) -> Submitter:
        with self._lock:
            if self._submitter is None:
                from teamster.tasks.futures import Submitter

                self._submitter = Submitter(
                    self._teams.team(self._planner.submitting),
                    CallOptions(*self._limits, None),
                    self._clock,
                )
            return self._submitter

    def finish(self) -> None:
        """Wait until all are done."""
        if not self._teams.closed and self._submitter is not None:
            self._submitter.drain()

    def cancel(self) -> None:
        """Cancel what has not started."""
        if self._submitter is not None:
            self._submitter.cancel_all()

    def do_at_last(self, what: Callable[[], object]) -> None:
        """Do `what` when none is open any more."""
        if self._submitter is None or not self._submitter.do_at_last(what):
            what()

    def close(self) -> None:
        """Let the thread that reads answers end."""
        if self._submitter is not None:
            self._submitter.close()

    def join(self) -> None:
        """Wait for that thread."""
        if self._submitter is not None:
            self._submitter.join()
