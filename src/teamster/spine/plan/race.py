# SPDX-License-Identifier: BSD-3-Clause
"""The race of the candidates: which works next, from what each has shown.

Pure: it knows no worker and no clock.

::

    predicted, bound  the one that promises most is tried first; one with a bound below what
                      another has reached is never tried
    measured          the one that works is measured all the time; the best goes on
    none left to try  it is settled, until `reopen`

The search is a branch and bound (Land and Doig, 1960) over a handful of candidates: an optimistic
bound costs nothing, a trial costs the work that another would have done meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from teamster.spine.plan.choice import best
from teamster.spine.plan.plan import Candidate

_WORTH = 1.05  # a promise below this is not worth a change
# Nor is a promise below this when everything was settled before: it was not good enough then
_SETTLED_WORTH = 1.25
_BOUND_WORTH = 1.25  # a bound is hope, not a promise
_SPOILED = 0.8  # of the rate: what a trial beside it costs, and no more
# Of the best promise: then the one that is there soonest comes first, for a trial of others costs
# little after that
_NEAR = 0.8
_HYSTERESIS = 1.10  # what is settled must be beaten by this
_TRIAL_S = 0.04  # shorter, a rate is noise
_BUDGET = 0.05  # of the work, for trials that only a bound speaks for
_BUDGET_S = 0.05  # spent on trials without a question: less than a person notices

Key = tuple[str, int]


class Race:
    """The candidates of one job.

    Example:
        >>> loop = Candidate("serial", 1, 10.0, 10.0, 10.0)
        >>> race = Race([loop, Candidate("process", 2, 19.0, 20.0)])
        >>> race.start(race.choose(horizon_s=10.0))
        >>> race.measure(18.5)
        >>> str(race.choose(horizon_s=9.0)), race.settled
        ('process(2)', True)
    """

    def __init__(self, candidates: Iterable[Candidate]) -> None:
        self._field: dict[Key, Candidate] = {}
        self._dropped: dict[str, str] = {}  # backends that turned out to be impossible, and why
        self.renew(candidates)
        self.current = next(iter(self._field.values()))
        self.settled = False

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """All of them, with what was measured, in the order in which they were thought of."""
        return tuple(self._field.values())

    def renew(self, candidates: Iterable[Candidate]) -> None:
        """Take new predictions; what was measured stays.

        A number of workers that was not tried gives way to a new one.
        """
        for new in map(self._marked, candidates):
            stale = [
                key
                for key, old in self._field.items()
                if key[0] == new.backend and old.measured is None
            ]
            for key in stale:
                if key != _key(new) and self._field[key] is not getattr(self, "current", None):
                    del self._field[key]
            old = self._field.get(_key(new))
            tried = [
                each
                for each in self._field.values()
                if each.backend == new.backend and each.measured is not None
            ]
            if old is None and tried and new.backend != "serial":
                continue  # its number of workers is searched by climbing from now on
            self._field[_key(new)] = (
                new if old is None or old.measured is None else replace(new, measured=old.measured)
            )

    def reopen(self, candidates: Iterable[Candidate], rate: float) -> None:
        """The items have changed: what was measured of others counts no more.

        The current one reaches `rate` now.
        """
        current = replace(self.current, measured=rate, predicted=rate, bound=rate, note="")
        self._field = {_key(current): current}
        for new in map(self._marked, candidates):
            self._field.setdefault(_key(new), new)
        self.current, self.settled = current, False

    def measure(self, rate: float) -> None:
        """The current candidate reaches `rate` items a second."""
        if self.settled and self.current.measured is not None and self.current.backend != "serial":
            rate = math.sqrt(rate * self.current.measured)  # whatever disturbs one window
        self.current = replace(self.current, measured=rate)
        self._field[_key(self.current)] = self.current

    def propose(self, candidates: Iterable[Candidate]) -> None:
        """Take candidates that a trial has suggested; known ones stay as they are."""
        for new in map(self._marked, candidates):
            self._field.setdefault(_key(new), new)

    def drop(self, backend: str, why: str) -> None:
        """A backend turned out to be impossible, and stays so."""
        self._dropped[backend] = why
        self._field = {key: self._marked(each) for key, each in self._field.items()}

    def lift(self, backend: str) -> None:
        """It is possible after all."""
        if (why := self._dropped.pop(backend, None)) is not None:
            self._field = {
                key: replace(each, note="") if each.note == why else each
                for key, each in self._field.items()
            }

    def _marked(self, candidate: Candidate) -> Candidate:
        why = self._dropped.get(candidate.backend)
        return candidate if why is None else replace(candidate, note=why)

    def choose(self, horizon_s: float, start_s: dict[str, float] | None = None) -> Candidate:
        """The candidate that should work from now on; `start` makes it so.

        Args:
            horizon_s: seconds that the current candidate would need for what is left, as far as one
                knows.
            start_s: seconds until each backend's workers could start; none where it is missing.

        Returns:
            A candidate to try, or the best of those that were tried.
        """
        rate, start_s = self.current.measured, start_s or {}
        if rate is None:
            return self.current  # its trial goes on
        leader = self._leader()
        left = horizon_s * rate  # items
        hopeful = [
            each
            for each in self._field.values()
            if self._is_worth_trying(each, leader, left, start_s)
        ]
        self.settled = not hopeful
        if not hopeful:
            return leader
        speeds = [
            _speed(each.predicted or 0.0, left, start_s.get(each.backend, 0.0)) for each in hopeful
        ]
        near = [
            each
            for each, speed in zip(hopeful, speeds, strict=True)
            if speed >= _NEAR * max(speeds)
        ]
        return max(
            near, key=lambda each: (-start_s.get(each.backend, 0.0), speeds[hopeful.index(each)])
        )

    def start(self, candidate: Candidate) -> None:
        """`candidate` works from now on."""
        self.current = candidate

    def _leader(self) -> Candidate:
        """The best so far; what is settled stays unless it is beaten clearly."""
        if not any(each.measured and not each.note for each in self.candidates):
            return self.current
        leader = best(self.candidates)
        if (
            self.settled
            and not self.current.note
            and (leader.measured or 0.0) < _HYSTERESIS * (self.current.measured or 0.0)
        ):
            return self.current
        return leader

    def _is_worth_trying(
        self, each: Candidate, leader: Candidate, left: float, start_s: dict[str, float]
    ) -> bool:
        if each.measured is not None or each.note or leader.measured is None:
            return False
        start = start_s.get(each.backend, 0.0)
        worth = _SETTLED_WORTH if self.settled and self.current.backend != "serial" else _WORTH
        if (
            leader.note
            or _speed((each.predicted or 0.0) * _kept(leader), left, start)
            > worth * leader.measured
        ):
            return True
        # If it disappoints, the trial has cost its own length; and n items one after the other, if
        # its threads only took turns.
        bound = (each.bound or 0.0) * _kept(leader)
        cost_s = _TRIAL_S + (each.workers / bound if bound else 0.0) * each.workers
        affordable = cost_s <= max(_BUDGET_S, _BUDGET * left / leader.measured)
        return affordable and _speed(bound, left, start + cost_s) > _BOUND_WORTH * leader.measured


def _kept(leader: Candidate) -> float:
    """The share of its promise that the leader has kept.

    What spoiled a little of it will spoil as much of others'. Where it is much, the promise itself
    was wrong, as with threads that fight for the lock; that says nothing of others.
    """
    kept = (leader.measured or 0.0) / leader.predicted if leader.predicted else 1.0
    return kept if _SPOILED < kept < 1.0 else 1.0


def _key(candidate: Candidate) -> Key:
    return candidate.backend, candidate.workers


def _speed(rate: float, items: float, start_s: float) -> float:
    """Items a second over the rest of the job, the start of the workers included."""
    return items / (start_s + items / rate) if rate > 0 and items > 0 else 0.0
