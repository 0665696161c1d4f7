# SPDX-License-Identifier: BSD-3-Clause
"""A map call that can change its workers: how the next items get to others, and when they may.

::

    wanted --> its team --> is it clear that these workers would not only take turns at the
                              interpreter's lock?
                            are they up, and do they find in their modules what is here?
                              --> they have the next items
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from teamster.errors import PoolClosed, first_line
from teamster.machine.gil import is_available
from teamster.spine.plan.choice import Limits
from teamster.spine.plan.plan import Candidate, Plan
from teamster.spine.trace.spans import mark
from teamster.spine.workers.backends import can_fork_at_once
from teamster.spine.workers.team import Team
from teamster.tasks.arguments import MapCall
from teamster.tasks.auto.doubtful import DoubtfulMapping, why_not_sent
from teamster.tasks.auto.steering import Steering
from teamster.tasks.auto.throughput import Throughput
from teamster.tasks.teams import Teams

if TYPE_CHECKING:
    from teamster.tasks.auto.import_check import ImportCheck

_LONG_ITEM_S = 0.02  # items of which a handful is a trial
_THREAD_START_S = 0.0005  # as measured
_SERVER_START_S = 0.08  # until the fork server is there, once a program
_PROCESS_START_S = 0.012  # each, until it can have items
_TOO_LONG_S = 0.1  # no item of this length is begun here while others could soon have it
_MOSTLY = 0.5  # of an item's time is spent waiting: then the lock is no question
_SMALL_PART = 0.05  # of the work
# Times as fast as processes threads could be, if what is not known yet were in their favour
_CLEARLY = 1.1
# Of work: a lock that is free was seen by then; that of others need not be known to start processes
_FREE_SEEN_NS = 12_000_000
# Of the work that is left, for a look at the code
_LOOK_SHARE, _LEAST_LOOK_S, _MOST_LOOK_S = 0.02, 0.002, 0.03


class ChangingMapping(DoubtfulMapping):
    """One map call under way; its workers may change."""

    def __init__(self, call: MapCall, teams: Teams, limits: Limits) -> None:
        super().__init__(call, teams)
        self._limits = limits
        # Nothing runs here, since the initializer does not
        self._away = limits.allow == ("process",)
        self._steering = Steering(limits)
        self._throughput: Throughput | None = None
        self._starting: Team | None = None
        self._asked: ImportCheck | None = None

    @property
    def _import_check(self) -> ImportCheck:
        """What is asked before others get items.

        Most short calls never come to that, and load none of it.
        """
        if self._asked is None:
            from teamster.tasks.auto.import_check import ImportCheck

            self._asked = ImportCheck(self._call)
        return self._asked

    def _start_away(self, workers: int) -> None:
        """Have processes run the first items, too."""
        wanted = Candidate("process", workers)
        self._steering.begin_with(wanted)
        self._hand_over(
            wanted, self._teams.team(Plan("process", workers, "prepared by an initializer"))
        )

    def _change_to(self, wanted: Candidate) -> None:
        """Give the next items to `wanted`, once its workers can have them."""
        if wanted == self._steering.race.current:
            return
        if wanted.backend == "serial":
            self._leave()
            self._here.forget()
            self._steering.race.start(wanted)
            mark("auto: back to the caller")
            self._working = None
            return
        if not self._away and (why := self._import_check.objection(wanted.backend, self._look_s())):
            self._steering.race.drop(
                wanted.backend, f"stays here: {why}" if wanted.backend == "process" else why
            )
            return
        try:
            # The first one starts the fork server
            team = self._teams.team(Plan(wanted.backend, wanted.workers, "on trial"))
            if self._may_start(wanted, team):
                self._hand_over(wanted, team)
        except PoolClosed:
            raise
        except Exception as error:  # the function, or the initializer, does not pickle
            self._steering.race.drop(wanted.backend, why_not_sent(error))

    def _may_start(self, wanted: Candidate, team: Team) -> bool:
        """Whether the workers can have items, as far as one knows by now."""
        unclear = not self._away and self._working is None and self._is_unclear(wanted)
        if not self._away and (
            self._source.is_doubtful or (unclear and self._here.clock.run_ns < _FREE_SEEN_NS)
        ):
            return False
        if wanted.backend != "process":
            return not unclear
        up = self._are_up(team)
        if self._away or team.dispatcher.start_error is not None:
            return up
        long_items = up and self._working is None and self._here.clock.item_s >= _TOO_LONG_S
        # Asked before all of them are up: the first that is will answer.
        if not self._import_check.is_answered(
            team, self._here.clock.item_s if long_items else 0.0, self._look_s()
        ):
            return False
        if self._import_check.stays:
            self._steering.race.drop("process", f"stays here: {self._import_check.stays}")
        return up and not self._import_check.stays and not unclear

    def _look_s(self) -> float:
        """Seconds that a look at the code may take."""
        return min(
            max(_LEAST_LOOK_S, _LOOK_SHARE * self._left() * self._here.clock.item_s), _MOST_LOOK_S
        )

    def _is_unclear(self, wanted: Candidate) -> bool:
        """Whether it pays to wait for samples of the interpreter's lock.

        They tell whether threads would only take turns.
        """
        evidence, here = self._steering.evidence, self._here
        assert evidence is not None
        if evidence.gil is not None or not is_available() or not here.watched:
            return False
        cores = self._limits.cores
        if here.clock.item_s > _TOO_LONG_S and cores - 1 > _SMALL_PART * self._left():
            # An item run here leaves the others idle
            return False
        if wanted.backend == "thread":
            return evidence.waiting < _MOSTLY
        threads = (
            each
            for each in self._steering.race.candidates
            if each.backend == "thread" and each.measured is None
        )
        return any((each.bound or 0.0) > _CLEARLY * (wanted.predicted or 0.0) for each in threads)

    def _are_up(self, team: Team) -> bool:
        """Whether process workers can have items.

        They can when half of them are there, or when all that is lost by waiting is an item.
        """
        ready = team.dispatcher.start_all()
        self._starting = team
        if team.dispatcher.start_error is not None:
            self._steering.race.drop(
                "process", f"its workers do not start: {first_line(team.dispatcher.start_error)}"
            )
            team.dispatcher.stop_all()
            return False
        if (
            self._working is None
            and self._here.clock.item_s >= _TOO_LONG_S
            and not self._teams.has_initializer
        ):
            return True
        # The first item may have paid for what the others find done
        return 2 * ready >= team.dispatcher.count and (self._away or self._here.clock.items > 1)

    def _hand_over(self, wanted: Candidate, team: Team) -> None:
        spec = team.dispatcher.define(
            self._call.function, self._call.style, seed=self._call.seed, low_latency=self._lazy
        )
        self._leave()
        self._steering.race.start(wanted)
        mark(f"auto: {wanted.backend}({wanted.workers})")
        self._working = placed = self.work_on(team, spec)
        long_items, cores = (
            self._steering.evidence is not None and self._steering.evidence.wall_s > _LONG_ITEM_S,
            self._limits.cores,
        )
        self._throughput = Throughput(
            placed.job,
            lambda: self._results.reported,
            wanted.workers,
            wanted.backend,
            cores,
            long_items=long_items,
            lazy=self._lazy,
        )

    def _leave(self) -> None:
        """The workers get no more items."""
        self._here.unwatch()
        if self._working is not None and not self._working.team.backend.pulls:
            self._working.team.dispatcher.stop_all()

    def _start_s(self) -> dict[str, float]:
        """Seconds until each kind of workers could have items."""
        if self._starting is not None and any(
            worker.ready for worker in self._starting.dispatcher.workers
        ):
            return {"thread": _THREAD_START_S, "process": 0.0}
        count = next(
            (each.workers for each in self._steering.race.candidates if each.backend == "process"),
            1,
        )
        server = 0.0 if can_fork_at_once() else _SERVER_START_S
        return {"thread": _THREAD_START_S, "process": server + count * _PROCESS_START_S}

    def _rule_out(self, kind: str, why: str) -> None:
        self._steering.race.drop(kind, why)
        if self._steering.race.current.backend == kind:
            self._change_to(Candidate("serial", 1))

    def _let_in(self, kind: str) -> None:
        self._steering.race.lift(kind)

    def _left(self) -> float:
        """Items still to come; where that is not known, as many again as there were."""
        remaining = self._source.remaining
        return len(self._refused) + float(
            remaining if remaining is not None else self._source.pulled
        )
