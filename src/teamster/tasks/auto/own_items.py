# SPDX-License-Identifier: BSD-3-Clause
"""A map call of which the caller runs items itself.

Here is where their results go, and how they are counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

from teamster.errors import PoolClosed
from teamster.spine.workers.team import CLOSED
from teamster.tasks.arguments import MapCall
from teamster.tasks.auto.caller import CallerRunner
from teamster.tasks.mapping import Mapping
from teamster.tasks.teams import Teams


class OwnItemsMapping(Mapping):
    """One map call under way, partly in the caller."""

    def __init__(self, call: MapCall, teams: Teams) -> None:
        super().__init__(call)
        self._teams = teams
        self._here = CallerRunner(call.function, call.style, call.seed, call.source, self)
        # Pulled, and not to be run by workers of a kind
        self._refused: deque[tuple[int, Any, str]] = deque()
        self._doubted: dict[int, BaseException] = {}  # how those of them failed that did
        self._noted = 0, 0  # items and time of the caller that the ledger knows

    def runs_here(self) -> bool:
        """Whether the caller itself runs an item now."""
        return self._here.inside

    def take_here(self, first: int, values: list[Any]) -> None:
        """Results of consecutive items."""
        with self._teams.lock:
            self._teams.here.items += len(values)
            self._take_values(first, values)

    def list_here(self, first: int) -> list[Any] | None:
        """The results themselves, while the caller is alone: one copy less."""
        return None if self._placed else self._results.list_from(first)

    def took_here(self, count: int) -> None:
        """So many results are in them now."""
        with self._teams.lock:
            self._teams.here.items += count
        self._results.added(count)
        self._bar.add(count)

    def fail_here(self, index: int, error: BaseException) -> bool:
        """What an item raised; with `raise_errors` it is the last that runs."""
        with self._teams.lock:
            self._teams.here.items += 1
            self._teams.here.failures += 1
            self._take_error(index, error)
        return not self._raise_errors

    def _note_here(self) -> None:
        """Bring the ledger's account of the caller up to date."""
        here, (items, busy_ns) = self._here, self._noted
        self._noted = here.clock.items, here.clock.run_ns
        with self._teams.lock:
            self._teams.here.note(
                0, here.clock.items - items, here.clock.run_ns - busy_ns, perf_counter_ns()
            )

    def _nudge(self) -> None:
        """A thread that waits has to look at what is to be done here: nothing else may come."""
        for team in self._teams.present:
            team.nudge()

    def _glance(self) -> None:
        """Read what all workers have sent, without waiting."""
        for team in self._teams.present:
            team.poll_once()

    def _is_over(self, done: Callable[[], bool]) -> bool:
        with self._teams.lock:
            if done():
                return True
            if self._teams.closed:
                raise PoolClosed(CLOSED)
            return False

    def _has_enough(self) -> bool:
        return (
            self.error is not None or (self._lazy and bool(self._results.ready)) or self._is_full()
        )

    def _is_full(self) -> bool:
        """Whether as much as may be waits already behind an item that a worker runs."""
        return (
            self._lazy and bool(self._placed) and not self._results.ready and not self._may_pull()
        )

    def _wait_for_others(self, done: Callable[[], bool]) -> None:
        """Wait for what is under way.

        It waits on processes first: they have to be polled, and their leader hears of threads, too.
        """
        busy = [
            placed for placed in self._placed if placed.team.dispatcher.is_busy_with(placed.job)
        ]
        if busy:
            placed = next((placed for placed in busy if placed.team.backend.pulls), busy[0])

            def over() -> bool:
                return (
                    done()
                    or bool(self._refused)
                    or not placed.team.dispatcher.is_busy_with(placed.job)
                )

            placed.team.run_until(over)

    def _abandon(self, reason: BaseException) -> None:
        self._let_go()
        super()._abandon(reason)

    def _end(self) -> None:
        self._let_go()
        super()._end()

    def _let_go(self) -> None:
        """Nothing more runs here."""
        self._here.close()
        self._note_here()
