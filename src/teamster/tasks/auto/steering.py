# SPDX-License-Identifier: BSD-3-Clause
"""What should have the next items of a call: decided from evidence, rates and what is left.

It knows no worker and no clock.

::

    of the caller's items: evidence, seconds an item -> hear_caller  -> predictions, as long as
                                                                        the items are of one kind
    of workers' windows:   evidence, rate            -> hear_workers -> neighbours; predictions
                                                           |            anew when the items have
                                                           |            changed
                                                        choose(horizon) -> a candidate
"""

from __future__ import annotations

from teamster.spine.plan.choice import Limits, conclude, neighbours, predict
from teamster.spine.plan.plan import Candidate, Evidence, Plan
from teamster.spine.plan.race import Race

_VERY_OTHER = 4.0  # times as long as before: another kind of item
_OTHER = 2.0  # the same, in two windows one after the other: one may have met some odd items


class Steering:
    """The choice of one call, as it stands.

    Args:
        limits: what it may use.

    Attributes:
        race: the candidates, and what they have shown.
        evidence: what is known of the items; None before anything was measured.

    Example:
        >>> steering = Steering(Limits(cores=2))
        >>> steering.hear_caller(Evidence(10, wall_s=0.01, cpu_s=0.01, gil=None), item_s=0.01)
        >>> steering.choose(horizon_s=60.0, start_s={"process": 0.1}).backend
        'process'
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.race = Race([Candidate("serial", 1)])
        self.evidence: Evidence | None = None
        self._basis_s = 0.0  # time of an item when the race began
        self._drift = 1.0  # of the items in the last window

    def begin_with(self, wanted: Candidate) -> None:
        """The first items go there, before anything is known."""
        self.race = Race([wanted])

    def resume(self, plan: Plan) -> None:
        """Go on from what an earlier call has found."""
        self.evidence, self.race = plan.evidence, Race(plan.candidates)

    def hear_caller(self, evidence: Evidence, item_s: float) -> None:
        """The caller has run items: what they tell, and how long one takes now."""
        self.evidence = evidence
        candidates, rate = predict(evidence, self._limits), 1 / item_s
        if not self._basis_s or not 1 / _OTHER < item_s / self._basis_s < _OTHER:
            self._basis_s = item_s
            if self.race.current.measured is not None:
                self.race.reopen(candidates, rate)
        self.race.renew(candidates)
        self.race.measure(rate)

    def hear_workers(self, evidence: Evidence, rate: float) -> None:
        """The workers have run so many items a second in a window, which tells this of them."""
        self.race.measure(rate)
        if self.evidence is None:
            self.evidence = evidence
            self.race.reopen(predict(evidence, self._limits), rate)
        suggested = neighbours(self.race.current, self.evidence, self._limits)
        drift = drift_of(evidence, self.evidence)
        if drift > _VERY_OTHER or min(drift, self._drift) > _OTHER:
            self.evidence = evidence
            self.race.reopen(predict(evidence, self._limits), rate)
        self._drift = drift
        self.race.propose(suggested)

    def choose(self, horizon_s: float, start_s: dict[str, float]) -> Candidate:
        """What should have the next items.

        Args:
            horizon_s: seconds that what works now would need for what is left.
            start_s: seconds until each kind of workers could have items.
        """
        return self.race.choose(horizon_s, start_s)

    def needs_no(self, backend: str, wanted: Candidate) -> bool:
        """Whether workers of this kind are out of the race.

        They neither work nor are wanted, and nothing is left to try.
        """
        return self.race.settled and backend not in (self.race.current.backend, wanted.backend)

    def plan(self, choice: Candidate | None = None) -> Plan:
        """The choice with its reasons; what works now, unless another is named."""
        assert self.evidence is not None
        return conclude(choice or self.race.current, self.race.candidates, self.evidence)


def drift_of(now: Evidence, before: Evidence) -> float:
    """How far the items are from what they were.

    They take so many times longer, or shorter, or wait where they computed.
    """
    times = now.wall_s / before.wall_s
    return max(times, 1 / times, _VERY_OTHER * abs(now.waiting - before.waiting))
