# SPDX-License-Identifier: BSD-3-Clause
"""How the calls of one pool are run.

They are run as asked for, as recorded, as known from the call before, or as measured.

::

    backend=, plan=  -------> Mapping on one team
    TEAMSTER_PLAN_FILE -----> the same, with the plan of the run before
    "auto" -----------------> MeasuredMapping, which starts with what the pool knows of the function
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from teamster.errors import UsageError
from teamster.machine.cpus import usable_cores
from teamster.machine.gil import has_gil
from teamster.spine.plan.choice import CANDIDATES, Limits, choose, is_backend, is_count
from teamster.spine.plan.plan import Plan
from teamster.spine.workers.worker_info import is_inside_worker
from teamster.tasks.arguments import MapCall
from teamster.tasks.mapping import Mapping
from teamster.tasks.teams import Teams

if TYPE_CHECKING:
    from teamster.spine.plan.store import PlanStore
    from teamster.tasks.auto.measured import Known, MeasuredMapping

_EXPLAIN = "TEAMSTER_EXPLAIN"
_PLAN_FILE = "TEAMSTER_PLAN_FILE"
_MOST_KNOWN = 64  # plans of functions that a pool remembers


class Planner:
    """Decides for each call of one pool.

    Args:
        plan: what the pool was asked for; its backend is "auto" when that is to be measured.
        limits: what may be used then.
        teams: those of the pool.
    """

    def __init__(self, plan: Plan, limits: Limits, teams: Teams) -> None:
        self._asked = plan
        self._limits = limits
        self._teams = teams
        self._latest: MeasuredMapping | Plan = plan
        self._known: dict[Any, Known] = {}
        self._store = _store() if plan.backend == "auto" else None

    @property
    def plan(self) -> Plan:
        """Of the latest call, as it stands."""
        return self._latest if isinstance(self._latest, Plan) else self._latest.plan()

    @property
    def submitting(self) -> Plan:
        """The workers for single calls.

        A future is wanted at once, so "auto" runs none in the caller first.
        """
        if self._asked.backend != "auto":
            return self._asked
        backend = next(
            each for each in ("process", "thread", "serial") if each in self._limits.allow
        )
        return Plan(backend, self._asked.workers, "for submitted calls, which are not measured")

    def mapping(self, call: MapCall) -> Mapping:
        """Make ready to run a call."""
        importing = module_under_import() if self._asked.backend in ("thread", "auto") else ""
        if importing and self._asked.backend == "thread":
            reason = (
                f"runs here, since {importing} is being imported: a thread that imports it, too, "
                "would wait for this call"
            )
            self._latest = Plan("serial", 1, reason)
            return self._fixed(call, self._latest)
        if self._asked.backend != "auto":
            return self._fixed(call, self._asked)
        # Threads share the generators, and the locks of modules
        shared = call.seed is not None or importing
        limits = self._limits.without("thread") if shared else self._limits
        if is_inside_worker():  # a task calls this: it would wait for workers that wait for it
            limits = replace(limits, allow=("serial",))
        if len(limits.allow) == 1 and limits.allow != ("serial",):
            return self._fixed(
                call, Plan(limits.allow[0], self._asked.workers, "nothing else is allowed")
            )
        if self._teams.has_initializer and "process" in limits.allow:
            # In the caller, or its threads, the initializer would change the program
            limits = (
                replace(limits, allow=("process",))
                if self._teams.can_send_initializer()
                else limits.without("process")
            )
        name, recorded = (
            self._store.next_call(call.function) if self._store is not None else ("", None)
        )
        if (
            recorded is not None
            and recorded.backend in limits.allow
            and limits.workers in (None, recorded.workers)
        ):
            self._latest = recorded
            self._explain(recorded)
            return self._fixed(call, recorded)
        key = _key(call)
        # Loaded here, since a pool of one kind needs nothing of it
        from teamster.tasks.auto.measured import MeasuredMapping

        mapping = MeasuredMapping(
            call, self._teams, limits, partial(self._ended, key, name), self._known.get(key)
        )
        self._latest = mapping
        return mapping

    def _ended(self, key: Any, name: str, plan: Plan, prints: dict[str, Any] | None) -> None:
        """A measured call is over: keep its plan, and nothing else of it."""
        self._latest = plan
        if key is not None and plan.evidence is not None and prints is not None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.pop(next(iter(self._known)))
            self._known[key] = plan, prints
        self._explain(plan)
        if self._store is not None:
            try:
                self._store.record(name, plan)
            except UsageError as error:  # the results are there; the file is the lesser matter
                warnings.warn(str(error), RuntimeWarning, stacklevel=2)

    def _fixed(self, call: MapCall, plan: Plan) -> Mapping:
        if plan.backend == "serial":
            from teamster.tasks.auto.alone import AloneMapping

            return AloneMapping(call, self._teams)
        mapping, team = Mapping(call), self._teams.team(plan)
        one_by_one = call.terms.timeout is not None
        mapping.work_on(
            team,
            team.dispatcher.define(
                call.function,
                call.style,
                seed=call.seed,
                one_by_one=one_by_one,
                low_latency=call.lazy,
            ),
        )
        return mapping

    def _explain(self, plan: Plan) -> None:
        if os.environ.get(_EXPLAIN, "0") not in ("", "0"):
            print(f"teamster: {plan}", file=sys.stderr)


def _store() -> PlanStore | None:
    """The file of recorded plans, if there is to be one.

    Its code is not loaded where there is none.
    """
    if not os.environ.get(_PLAN_FILE):
        return None
    from teamster.spine.plan.store import store_from_environment

    return store_from_environment()


def _key(call: MapCall) -> Any:
    """What a plan is remembered by: the function's code and the type of its argument.

    None where that cannot be seen.
    """
    code = getattr(call.function, "__code__", None)
    first = call.source.peek()
    return None if code is None or first is None else (code, type(first), call.style)


def decide(
    backend: str, workers: int | None, allow: Sequence[str], plan: Plan | None, needs: str
) -> tuple[Plan, Limits]:
    """What a pool is to be, before anything is measured.

    Args:
        backend: as asked for.
        workers: as asked for.
        allow: as asked for.
        plan: one to repeat, in place of these.
        needs: why only processes will do; empty when others do, too.

    Returns:
        The plan, and what "auto" may use.

    Raises:
        UsageError: an argument makes no sense.
    """
    cores = _cores(
        tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else (),
        int(monotonic()),
    )
    # What it is, `choose` will say
    allowed: Any = tuple(allow) if isinstance(allow, (list, tuple, set, frozenset)) else allow
    limits = Limits(cores, allowed, workers, parallel_threads=not has_gil())
    if plan is not None:
        if backend != "auto" or workers is not None or set(allowed) != set(CANDIDATES):
            raise UsageError(
                "plan= stands for backend=, workers= and allow=: give one or the others"
            )
        return _check_plan(plan), limits
    chosen = choose(
        backend, workers, cores=cores, inside_worker=is_inside_worker(), allow=limits.allow
    )
    if chosen.backend != "auto" or not needs:
        return chosen, limits
    if "process" not in limits.allow:
        raise UsageError(f"{needs}, and allow={limits.allow!r} has no 'process'")
    return Plan("process", workers or cores, needs), limits


@lru_cache(maxsize=1)
def _cores(affinity: tuple[int, ...], second: int) -> int:
    """Usable cores, looked up at most once a second.

    The control groups take a quarter of a millisecond.
    """
    return usable_cores()


def _check_plan(plan: object) -> Plan:
    if not isinstance(plan, Plan) or not is_backend(plan.backend) or not is_count(plan.workers, 1):
        raise UsageError(
            f"plan must be a Plan, such as pool.plan or Plan.from_dict(...), not {plan!r:.80}"
        )
    return plan


def what_needs_processes(
    retries: int, timeout: float | None, max_tasks: int | None, start_method: str | None
) -> str:
    """Why "auto" has no choice; empty when it has."""
    if timeout is not None:
        return "a timeout needs a worker that can be killed"
    if retries:
        return "retries are for workers that may die"
    if max_tasks is not None:
        return "a limit of tasks is for workers with memory of their own"
    return "a start method is for processes" if start_method is not None else ""


def module_under_import() -> str:
    """The module from the top level of which this call comes, while it is being imported.

    Empty when there is none. The interpreter holds a module's lock until its top level is over. A
    thread that imports the module back waits for that, and the top level waits for the thread:
    neither ends.

    Example:
        >>> module_under_import()
        ''
    """
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "<module>":
            spec = frame.f_globals.get("__spec__")
            if getattr(spec, "_initializing", False):
                return str(frame.f_globals.get("__name__"))
        frame = frame.f_back  # type: ignore[assignment]
    return ""
