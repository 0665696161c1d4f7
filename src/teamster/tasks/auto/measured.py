# SPDX-License-Identifier: BSD-3-Clause
"""A map call that chooses its workers while it runs.

::

    caller: the first items -- evidence --> predict --> Race --> what gets the next items
      |                                                  ^
      +--> threads, processes, or here again -- rate ----+

Every item goes to what works at the moment and is never run again because of a change: what is
under way comes back from where it is. While process workers start, the caller goes on with the
items itself.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

from teamster.spine.plan.choice import Limits
from teamster.spine.plan.plan import Evidence, Plan
from teamster.spine.plan.safety.check import SafetyCheck
from teamster.spine.workers.team import Team
from teamster.tasks.arguments import MapCall
from teamster.tasks.auto.changing import ChangingMapping
from teamster.tasks.teams import Teams

_SLICE_NS = 5_000_000  # of work in the caller, between two looks at everything else
_SHORT_SLICE_NS = 1_000_000  # the same while the caller waits for single results
_FEW_S = 0.02  # a job that the caller ends in this time is not worth a thought
_MANY = 256  # items, of which some might be long_items
_SECOND = 2_000  # items: from here on the second is waited for, too, which costs a 30th at most
_WATCH_NS = 2_000_000  # work in the caller before it gets a lookout
# Between two thoughts about the next items, and more when they were the same items for long
_LOOK_S = 0.002
_LOOK_SHARE = 0.05  # of the caller's time, for looks at the plan
_MOST_PAUSE_S = 0.1  # between two looks: what changes is seen in time
_SEEN_S = 0.002  # less work than this tells nothing
_CHECK_WORTH_S = 0.08  # of work that is left: what it takes until the first processes are there
_PROBE_S = 0.25  # of items for `explain`
_LONG_S = 60.0  # of work, where a probe cannot know how much there is
_CHECK_S = 0.001  # for the check of a function's meaning, before and after an item
# Of the work that is left, at the first check and at those after it
_CHECK_SHARES = (0.0, 0.02, 0.04)
_NOT_COMPARED = "what it carries has not been compared yet"

Known = tuple[Plan, dict[str, Any]]
"""A plan, and what the function carried when it was made."""

Ended = Callable[[Plan, dict[str, Any] | None], None]
"""Told both at the end.

There are no prints where the check was not over: the next call has to make it then.
"""


class MeasuredMapping(ChangingMapping):
    """One map call under way, on whatever serves it best."""

    def __init__(
        self, call: MapCall, teams: Teams, limits: Limits, ended: Ended, known: Known | None
    ) -> None:
        super().__init__(call, teams, limits)
        self._ended = ended
        self._known = known  # from an earlier call of the same function
        self._safety = SafetyCheck(call.function, seeded=call.seed is not None)
        self._next_look_s = 0.0
        self._checks = 0

    def plan(self) -> Plan:
        """The choice as it stands."""
        steering = self._steering
        if steering.evidence is None and self._away:
            current = steering.race.current
            return Plan(
                current.backend,
                current.workers,
                "the initializer prepares processes; over before anything was measured",
            )
        if steering.evidence is None:
            return Plan(
                "serial", 1, self._why_not(), (), self._look() if self._here.clock.items else None
            )
        return steering.plan()

    def probe(self) -> Plan:
        """Run the first items here, for about 0.25 s, and say what would be tried first."""
        try:
            self._here.run_singly()
            self._here.watch()
            while (
                not self._source.exhausted
                and self._here.clock.run_ns < _PROBE_S * 1e9
                and self.error is None
            ):
                self._run_here(lambda: False)
            self._raise_if_failed()
            if not self._here.clock.items:
                return self.plan()
            self._steering.hear_caller(self._look(), self._here.clock.item_s)
            known = self._source.remaining is not None
            choice = self._steering.choose(
                self._left() * self._here.clock.item_s if known else _LONG_S, self._start_s()
            )
            return self._steering.plan(choice)
        finally:
            self._here.close()  # and the input stays open: what did not run is its owner's

    def _why_not(self) -> str:
        """Why nothing but the caller was thought of."""
        if "serial" not in self._limits.allow:
            return "all of it was the probe, since it was over before others had started"
        return (
            "nothing else is allowed"
            if self._limits.allow == ("serial",)
            else "too little work to share"
        )

    def _resume(self, known: Plan, prints: dict[str, Any]) -> None:
        """Start with what an earlier call of this function has found.

        That is done only if the function carries what it carried then.
        """
        if known.evidence is None or not self._safety.is_as_before(prints, self._source.peek()):
            return
        self._safety.adopt(known.evidence)
        choice = next(
            (
                each
                for each in known.candidates
                if (each.backend, each.workers) == (known.backend, known.workers)
            ),
            None,
        )
        if (
            choice is None
            or choice.backend == "serial"
            or self._left() * known.evidence.wall_s < _FEW_S
        ):
            return
        self._steering.resume(known)
        self._change_to(choice)

    # --- progress ---------------------------------------------------------------------------------

    def _run_until(self, done: Callable[[], bool]) -> None:
        for team in self._teams.present:
            team.check_no_callback()
        known, self._known = self._known, None
        if self._away and self._working is None:
            self._start_away(
                known[0].workers
                if known is not None
                else self._limits.workers or self._limits.cores
            )
        elif known is not None:
            self._resume(*known)
        while not self._is_over(done):
            self._patience.ends()
            self._steer()
            if self._working is None:
                self._run_here(done)
            else:
                self._wait(self._polled(), done)

    def _wait(self, team: Team, done: Callable[[], bool]) -> None:
        """Wait for workers, as long as they are the ones to wait for."""
        over = self._patience.left_s()
        team.run_until(
            lambda: done() or self._working is None or self._polled() is not team,
            self._refill,
            seconds=over,
        )

    def _refill(self) -> None:
        self._steer()
        if self._working is not None:
            super()._refill()

    def _look_after(self) -> None:
        self._glance()
        self._refill()

    def _polled(self) -> Team:
        """The team to wait on.

        It is one that has to be polled for what is under way there, else the one that works.
        """
        assert self._working is not None
        working = self._working.team
        if not working.backend.pulls:
            for placed in self._placed:
                if placed.team.backend.pulls and placed.team.dispatcher.is_busy_with(placed.job):
                    return placed.team
        return working

    def _run_here(self, done: Callable[[], bool]) -> None:
        """Run the next items, or wait for those that are under way elsewhere."""
        if self._refused:  # they come first, one in each round
            self._note_here()
            self._glance()
            return
        if self._source.exhausted or self.error is not None or self._is_full():
            self._wait_for_others(done)
            return
        self._teams.prepare_here()
        if self._wants_check():
            self._check()
        else:
            slice_ns = _SHORT_SLICE_NS if self._lazy or not self._here.watched else _SLICE_NS
            self._here.run(slice_ns, self._has_enough)
        self._note_here()
        self._glance()

    # --- evidence ---------------------------------------------------------------------------------

    def _wants_check(self) -> bool:
        """Whether the next item is to tell if the function may leave this process.

        The first item is, and more are when time was short.
        """
        if self._safety.settled or "process" not in self._limits.allow or self._source.total == 1:
            return False
        return not self._checks or (
            self._here.clock.seen_s > _SEEN_S
            and self._left() * self._here.clock.item_s > _CHECK_WORTH_S
        )

    def _check(self) -> None:
        """Run an item with a look at what it changes.

        The last time that this takes too long is the end of it.
        """
        share = _CHECK_SHARES[self._checks]
        self._checks += 1
        self._here.run_checked(
            self._safety, max(_CHECK_S, share * self._left() * self._here.clock.item_s)
        )
        if self._checks == len(_CHECK_SHARES):
            self._safety.give_up()

    def _look(self) -> Evidence:
        """What is known by now, from the items that ran here."""
        here, safety = self._here, self._safety
        stays = safety.stays or (
            "" if safety.settled or "process" not in self._limits.allow else _NOT_COMPARED
        )
        sizes = safety.argument_bytes, safety.result_bytes, safety.move_s
        lent = self._source.stays
        here_only = lent or stays, lent or safety.one_thread
        return Evidence(
            here.clock.items,
            here.clock.item_s,
            here.clock.cpu_s,
            here.clock.all_cpu_s,
            here.gil(),
            *sizes,
            *here_only,
        )

    # --- the choice -------------------------------------------------------------------------------

    def _steer(self) -> None:
        """Look whether others should have the next items."""
        if self._refused or self._rulings:
            self._clear_up()
        if self._working is not None:
            self._steer_workers()
        elif self._here.clock.items:
            self._steer_here()

    def _steer_here(self) -> None:
        here, now = self._here, perf_counter()
        horizon_s = self._left() * here.clock.item_s
        if not here.watched and (
            (here.clock.run_ns > _WATCH_NS and horizon_s > _FEW_S)
            or (here.wants_watch and self._left() > _MANY)
        ):
            here.watch()
        if (
            horizon_s < _FEW_S
            or here.clock.seen_s <= _SEEN_S
            or self._left() < 1
            or (here.clock.items == 1 and self._left() > _SECOND)
            or now < self._next_look_s
            or self._wants_check()
        ):
            # Where a check is wanted, the next item tells: threads that had the rest before it
            # would never meet processes. And one item that opens a connection, or that met another
            # program on its core, is not to speak for thousands
            return
        pause_s = (
            _LOOK_SHARE * here.clock.run_ns / 1e9
            if here.gil() is not None and self._starting is None
            else 0.0
        )
        self._next_look_s = now + min(max(_LOOK_S, pause_s), _MOST_PAUSE_S)
        here.clock.bring_up_to_date()
        self._steering.hear_caller(self._look(), here.clock.item_s)
        wanted = self._steering.choose(horizon_s, self._start_s())
        if wanted.backend != "serial":
            self._change_to(wanted)
        elif self._starting is not None:  # in vain
            self._starting.dispatcher.stop_all()
            self._starting = None

    def _steer_workers(self) -> None:
        throughput, working = self._throughput, self._working
        assert throughput is not None
        assert working is not None
        if self._starting is not None and self._starting is not working.team:
            # No other thread reads what it says. (Of the team that works one does; a glance at it
            # woke up the thread that waits for it, which glanced again: the caller took a processor
            # from its workers, and the demonstration took 9 s instead of 5.6.)
            self._starting.poll_once()
        if (rate := throughput.read()) is None:
            return
        left = self._left()
        self._steering.hear_workers(
            throughput.evidence(self._steering.evidence or Evidence(0, 1.0, 0.0)), rate
        )
        wanted = self._steering.choose(left / rate, self._start_s())
        if left / rate > _FEW_S:
            self._change_to(wanted)
        # Not while they are wanted and only not up yet: they were started in each window, and sent
        # away. (A timeline showed it.)
        if self._starting is not None and self._steering.needs_no("process", wanted):
            self._starting.dispatcher.stop_all()  # they were started in vain, or have lost
            self._starting = None

    def _let_go(self) -> None:
        """Let go of everything but the plan."""
        super()._let_go()
        if self._asked is not None:
            self._asked.close()
        asked = "process" in self._limits.allow
        self._ended(
            self.plan(), self._safety.prints() if self._safety.settled or not asked else None
        )
