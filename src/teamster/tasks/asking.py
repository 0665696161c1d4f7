# SPDX-License-Identifier: BSD-3-Clause
"""A question to a process worker before it gets items: does it find in its modules what is here?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from teamster.spine.plan.fresh import States, difference, imported_states
from teamster.spine.workers.contract import Batch
from teamster.spine.workers.job import Job, Terms
from teamster.spine.workers.team import Team

_PATIENCE_S = 5.0  # of a wait for workers that start


class Question:
    """Asked once for a map call.

    Attributes:
        stays: why the function must stay here; empty while nothing speaks against leaving.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._here: States | None = None
        self._answered = False
        self.stays = ""

    def is_answered(self, team: Team, *, wait: bool) -> bool:
        """Ask, if that was not done yet; whether the answer is known, after a wait for it if that is wanted."""
        if self._here is None:
            self._here = imported_states(self._function)
            self._answered = not self._here
            if self._here:
                self._ask(team)
        if wait and not self._answered:
            team.run_until(lambda: self._answered, seconds=_PATIENCE_S)
        return self._answered

    def _ask(self, team: Team) -> None:
        spec = team.learn(imported_states, "call", hurry=True)
        job = Job(
            spec,
            Terms(0, None, 1),
            on_values=lambda first, values: self._compare(values[0]),
            on_error=lambda index, error: self._refuse(error),
            on_failure=self._refuse,
        )
        team.offer(job, [Batch(job, 0, [self._function])])

    def _compare(self, there: States) -> None:
        name = difference(self._here or {}, there)
        self.stays = f"in a new process `{name}` is not what it is here" if name else ""
        self._answered = True

    def _refuse(self, error: BaseException) -> None:
        self.stays, self._answered = str(error).splitlines()[0] if str(error) else repr(error), True
