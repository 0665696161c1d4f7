# SPDX-License-Identifier: BSD-3-Clause
"""Questions before others get items.

Does the code object, and does a process worker find in its modules what is here?
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from time import perf_counter, thread_time

from teamster.errors import first_line
from teamster.spine.plan.safety import library_data
from teamster.spine.plan.safety.captures import Captures
from teamster.spine.plan.safety.effects import Effects
from teamster.spine.plan.safety.fingerprint import Bound, checksum, is_bound_to_thread
from teamster.spine.plan.safety.imports import States, difference, imported_states, look_there
from teamster.spine.plan.safety.instructions import Thing
from teamster.spine.plan.safety.library_data import loaded_beside
from teamster.spine.plan.safety.patches import Origins, replaced
from teamster.spine.plan.safety.reached import library_states
from teamster.spine.workers.batch import Batch
from teamster.spine.workers.job import CallOptions, Job
from teamster.spine.workers.library_state import library_part, take, unsendable
from teamster.spine.workers.team import Team
from teamster.tasks.arguments import MapCall

_FEW_RESULTS = 8  # are found again in no time: a table that was read, a model that was loaded
_ASKED_AGAIN = 0.1  # of the results
_CONSTANTS = (int, float, complex, str, bytes, type(None))


class ImportCheck:
    """Asked once for a map call.

    Attributes:
        stays: why the function must stay here; empty while nothing speaks against leaving.
    """

    def __init__(self, call: MapCall) -> None:
        self._call = call
        self._function = call.function
        self._captures: Captures | None = None
        self._effects: Effects | None = None
        self._here: States | None = None
        self._replaced: Origins = {}
        self._library: library_data.States = {}
        self._answered = False
        self._over: Callable[[], None] = lambda: None
        self.stays = ""

    def objection(self, backend: str, look_s: float) -> str:
        """Why the code should not be run by such workers, as far as a look of `look_s` can tell.

        It is empty when the code may be run there.
        """
        if self._effects is None:
            self._effects = Effects(thread_time() + look_s)
            with suppress(Exception):
                # Raised by an object that answers every question with code of its own
                self._effects.look_at(self._function, _arguments(self._call))
        if backend == "process":
            self._captures = self._captures or Captures(self._function)
            return self._effects.against_processes(
                seeded=self._call.seed is not None
            ) or _remembers(self._captures)
        return self._effects.against_threads() or _belongs_to_one_thread(
            Captures(self._function), perf_counter() + look_s
        )

    def is_answered(self, team: Team, seconds: float, look_s: float) -> bool:
        """Ask, if that was not done yet, after a look of `look_s`.

        It returns whether the answer is known after a wait of so many seconds.
        """
        if self._here is None:
            self._here = imported_states(self._function)
            captures = self._captures = self._captures or Captures(self._function)
            self._replaced = replaced(look_s, captures.packages)
            self._library = library_states(captures, look_s)
            lost = unsendable(library_part(take()))
            self.stays = f"{lost}, as the program has set it, does not pickle" if lost else ""
            self._answered = bool(lost) or not (self._here or self._replaced or self._library)
            if not self._answered:
                self._ask(team)
        if seconds and not self._answered:
            team.run_until(lambda: self._answered, seconds=seconds)
        return self._answered

    def _ask(self, team: Team) -> None:
        spec = team.dispatcher.define(look_there, "star", low_latency=True)
        job = Job(
            spec,
            CallOptions(0, None, 1),
            on_values=lambda first, values: self._compare(*values[0]),
            on_error=lambda index, error: self._refuse(error),
            on_failure=self._refuse,
            counts=False,
        )
        self._over = lambda: team.dispatcher.finish(job)
        question = (
            self._function,
            tuple(self._replaced),
            self._library,
            loaded_beside(self._library),
        )
        team.offer(job, [Batch(job, 0, [question])])

    def close(self) -> None:
        """Whatever the answer, the call waits for it no more."""
        over, self._over = self._over, lambda: None
        over()

    def _compare(self, there: States, origins: Origins, library: str) -> None:
        name = difference(self._here or {}, there) or library
        name = name or next(
            (
                each.replace(":", ".")
                for each, origin in self._replaced.items()
                if origins[each] != origin
            ),
            "",
        )
        self.stays = f"in a new process `{name}` is not what it is here" if name else ""
        self._answered = True

    def _refuse(self, error: BaseException) -> None:
        self.stays, self._answered = (
            f"a worker cannot load it: {type(error).__name__}: {first_line(error)}",
            True,
        )


def _arguments(call: MapCall) -> dict[int | str, Thing]:
    """Those of the first item, where it can be seen, and that could be changed."""
    first = call.source.peek()
    values = first if call.style == "star" and isinstance(first, tuple) else (first,)
    return {
        position: Thing(value, "its argument")
        for position, value in enumerate(values)
        if not isinstance(value, _CONSTANTS)
    }


def _remembers(captures: Captures) -> str:
    """What is remembered here and asked for again: each process would have to find it once more."""
    for name, cache in captures.caches.items():
        known = cache.cache_info()
        if known.misses > _FEW_RESULTS and known.hits > known.misses * _ASKED_AGAIN:
            return (
                f"`{name}` remembers its results, {known.hits:,} of them were asked for again, and "
                "each process would begin anew"
            )
    return ""


def _belongs_to_one_thread(captures: Captures, deadline: float) -> str:
    """What the function carries by now, after some calls have opened what they need."""
    for name, value in captures.values.items():
        try:
            checksum(value, deadline)
        except Bound as bound:
            if is_bound_to_thread(bound.value):
                return f"it uses `{name}`, {bound.what} of this thread"
        except Exception:  # it is too large, or does not pickle
            continue
    return ""
