# SPDX-License-Identifier: BSD-3-Clause
"""A map call with a caller that runs what could not be run elsewhere.

The caller asks whether a failure is the item's or the place's.

::

    an item does not travel ---------> the caller runs it; this way is out
    it failed there, kind of error not seen here
        it had not begun (begun.py) -> the caller runs it: it fails here, too: its own failure
                                                           it does not: this way is out
        it had ----------------------> it has failed, and is never run twice; where so many of
                                       them fail that those that ran here should have, this way is
                                       out, until one fails here
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

from teamster.errors import TaskError, TransferError, first_line
from teamster.spine.workers.batch import Batch
from teamster.spine.workers.begun import has_begun
from teamster.spine.workers.exceptions import RemoteTraceback
from teamster.tasks.arguments import MapCall
from teamster.tasks.auto.own_items import OwnItemsMapping
from teamster.tasks.mapping import TeamJob
from teamster.tasks.teams import Teams

_FEW = 3  # failures: fewer may be chance
_CHANCE = 0.01  # that items as bad as those elsewhere would all have gone well here


class DoubtfulMapping(OwnItemsMapping):
    """One map call under way, with a caller that confirms what is doubtful."""

    def __init__(self, call: MapCall, teams: Teams) -> None:
        super().__init__(call, teams)
        self._working: TeamJob | None = None  # None: the caller itself
        self._away = False  # nothing may run here
        self._kinds_here: set[type[BaseException]] = set()  # what items raised here
        # What items raised elsewhere, after they had begun
        self._kinds_there: Counter[tuple[str, type[BaseException]]] = Counter()
        # Ways that are out, and why, for the caller to see to
        self._rulings: list[tuple[str, str]] = []

    # --- from whatever thread leads; the teams' lock is held --------------------------------------

    def _take_refused(self, kind: str, index: int, item: Any, error: BaseException) -> bool:
        """The caller runs it.

        Where one item pickles and another does not, both mean what they mean in a loop.
        """
        if self._away:
            return False
        self._refused.append((index, item, kind))
        self._rule(kind, why_not_sent(error))
        return True

    def _take_doubted(self, kind: str, index: int, item: Any, error: BaseException) -> bool:
        if (
            type(error) in self._kinds_here
            or isinstance(error, TaskError)
            or not self._here.clock.items
        ):
            return False
        cause = error.__cause__
        if cause.begun if isinstance(cause, RemoteTraceback) else has_begun(error):
            self._count(kind, error)
            return False
        self._doubted[index] = error
        self._refused.append((index, item, kind))
        self._nudge()
        return True

    def _count(self, kind: str, error: BaseException) -> None:
        """Note a failure that cannot be confirmed."""
        self._kinds_there[kind, type(error)] += 1
        failed = self._kinds_there[kind, type(error)]
        ran = max(
            failed,
            sum(placed.job.ran for placed in self._placed if placed.team.backend.kind == kind),
        )
        if failed >= _FEW and (1 - failed / ran) ** self._here.clock.items < _CHANCE:
            self._rule(
                kind, f"{failed:,} of {ran:,} items failed there, and none here: {show(error)}"
            )

    def _rule(self, kind: str, why: str) -> None:
        self._rulings.append((kind, why))
        self._nudge()

    def _pull_batches(self) -> list[Batch]:
        """None while it is doubtful whether they can be run there.

        What fails at once would have used up the input in no time.
        """
        return [] if self._refused else super()._pull_batches()

    def fail_here(self, index: int, error: BaseException) -> bool:
        """What an item raised here: such errors are the items' own."""
        kind = type(error)
        if kind not in self._kinds_here:
            with self._teams.lock:
                self._kinds_here.add(kind)
                ways = [way for way, other in self._kinds_there if other is kind]
                self._rulings = [ruling for ruling in self._rulings if ruling[0] not in ways]
            for way in ways:
                self._let_in(way)
        self._doubted.pop(index, None)
        return super().fail_here(index, error)

    # --- the caller's side ------------------------------------------------------------------------

    def _clear_up(self) -> None:
        """Run what the caller is to run, or pass it on, and see to the ways that are out.

        Alone, the caller does so with one item at a time: once that has ruled out a way, others may
        be better for the rest.
        """
        self._see_to_rulings()
        while self._refused and not self._pass_on():
            index, item, kind = self._refused.popleft()
            if index in self._doubted:
                # In the ledger it is an item of the worker that it failed in
                self._noted = self._noted[0] + 1, self._noted[1]
            self._here.run_one(index, item)
            if (error := self._doubted.pop(index, None)) is not None:  # it has not failed here
                self._rule(kind, f"an item failed there, and not here: {show(error)}")
            self._see_to_rulings()
            if self._working is None:
                break

    def _see_to_rulings(self) -> None:
        with self._teams.lock:
            rulings, self._rulings = self._rulings, []
        for kind, why in rulings:
            self._rule_out(kind, why)

    def _pass_on(self) -> bool:
        """Give what one kind of workers could not run to those of another that work now.

        It returns whether nothing is left.
        """
        if (working := self._working) is None:
            return False
        mine = [each for each in self._refused if each[2] != working.team.backend.kind]
        if mine:
            self._refused = deque(
                each for each in self._refused if each[2] == working.team.backend.kind
            )
            working.team.offer(
                working.job, [Batch(working.job, index, [item]) for index, item, _ in mine]
            )
        return not self._refused

    def _rule_out(self, kind: str, why: str) -> None:
        """No item goes to these workers any more."""
        raise NotImplementedError

    def _let_in(self, kind: str) -> None:
        """It was not their fault."""
        raise NotImplementedError


def why_not_sent(error: BaseException) -> str:
    """Why a function or an item stays here, from what its journey raised."""
    if isinstance(error, TransferError):
        return f"stays here: {first_line(error).partition(';')[0]}"
    return f"stays here: a worker cannot load it: {show(error)}"


def show(error: BaseException) -> str:
    """An error in a line, with its kind."""
    return f"{type(error).__name__}: {first_line(error)}"
