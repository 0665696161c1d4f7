# SPDX-License-Identifier: BSD-3-Clause
"""The teams of one pool.

There is one for a fixed backend, or one of each kind that "auto" has tried, under one lock.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import weakref
from collections.abc import Callable
from typing import Any

from teamster.errors import PoolClosed, annotate
from teamster.kinds import order_of
from teamster.spine.plan.plan import Plan
from teamster.spine.trace.report import Ledger
from teamster.spine.workers.team import Team

_numbers = itertools.count(1)
_ACCOUNTS_S = 0.1  # for what was sent right behind the results


class Teams:
    """Makes teams when they are needed, and ends all of them.

    Args:
        assemble: makes the team that a plan asks for.
        initialize: the pool's initializer, for the caller when it runs items itself.
    """

    def __init__(
        self, assemble: Callable[..., Team], initialize: Callable[[], object] | None
    ) -> None:
        self.number = next(_numbers)  # of the pool, in this program
        self._assemble = assemble
        self._initialize = initialize
        self.lock = threading.RLock()
        self.closed = False
        self.has_initializer = initialize is not None
        self._preparing = threading.RLock()
        self.here = Ledger()  # what the caller ran itself, as worker 0
        self._by_kind: dict[str, Team] = {}
        self.calls: weakref.WeakSet[Any] = weakref.WeakSet()  # what asks them

    def prepare_here(self) -> None:
        """Run the initializer in the caller, once, before its first item.

        Raises:
            Exception: what it raised.
        """
        if self._initialize is None:
            return
        with self._preparing:  # another thread's first item waits until it is over
            if (initialize := self._initialize) is not None:
                try:
                    initialize()
                except Exception as error:
                    annotate(error, "raised by the initializer of worker 0, the caller itself")
                    raise
                self._initialize = None

    def team(self, plan: Plan) -> Team:
        """The team of a plan's kind, with as many workers as it says from now on."""
        with self.lock:
            self.check_open()
            team = self._by_kind.get(plan.backend)
            if team is None:
                if plan.backend == "serial":  # the caller itself, too
                    team = self._assemble(
                        plan, self.lock, initializer=self.prepare_here, initargs=()
                    )
                    team.dispatcher.ledger = self.here
                else:
                    team = self._assemble(plan, self.lock)
                self._by_kind[plan.backend] = team
                for other in self._by_kind.values():
                    if other is not team:
                        other.beside.append(team)
                        team.beside.append(other)
            team.dispatcher.resize(plan.workers)
            return team

    def can_send_initializer(self) -> bool:
        """Whether processes could be prepared.

        An initializer that holds what is bound to this process is meant for this process.
        """
        try:
            self.team(Plan("process", 1, "to be prepared"))
        except PoolClosed:
            raise
        except Exception:
            return False
        return True

    @property
    def present(self) -> list[Team]:
        """Those that there are."""
        return [self._by_kind[kind] for kind in sorted(self._by_kind, key=order_of)]

    def check_open(self) -> None:
        """Refuse what comes after the end.

        Raises:
            PoolClosed: it has come.
        """
        if self.closed:
            raise PoolClosed("this pool is closed; make a new one")

    def ledger(self) -> Ledger:
        """What all of them have done together; workers are numbered through, the caller first."""
        total = Ledger()
        accounts = []
        for ledger, count in [
            (self.here, 0),
            *(
                (team.dispatcher.ledger, team.dispatcher.count)
                for team in self.present
                if team.dispatcher.ledger is not self.here
            ),
        ]:
            total.add(ledger)
            accounts += ledger.accounts(count)
        total.workers = dict(enumerate(accounts))
        return total

    def catch_up(self) -> None:
        """Read, soon or not at all, what workers say of batches that have all their results."""
        for team in self.present:
            with self.lock:
                unread = team.dispatcher.has_unread_ends and not (
                    team.closed or team.handled_here or team.backend.is_inside()
                )
            if unread:
                _read_ends(team)

    def note_bytes(self) -> None:
        """Bring byte counts up to date."""
        for team in self.present:
            if not team.closed:
                team.dispatcher.note_bytes()

    def close(self, seconds: float, error: BaseException | None = None) -> None:
        """End all workers; calls under way fail with `error`."""
        with self.lock:
            self.closed = True
        self.note_bytes()
        for team in self.present:
            team.close(seconds, error)

    def disown(self) -> None:
        """In a forked copy of the program: the workers are the original's."""
        self.closed = True
        self.lock = threading.RLock()
        for team in self.present:
            team.disown()


def _read_ends(team: Team) -> None:
    with contextlib.suppress(PoolClosed):
        team.run_until(lambda: not team.dispatcher.has_unread_ends, seconds=_ACCOUNTS_S)
