# SPDX-License-Identifier: BSD-3-Clause
"""Runs an experiment in every way, and measures.

::

    Case --calibrate--> seconds of an item, share of the GIL --> as many inputs as fill the time
         --> round 1: serial, thread(2), thread(4), ... auto    the median round of each way
             round 2: serial, thread(2), ...                    counts, and what disturbs one
         --> Outcome                                            round disturbs all ways
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from statistics import median
from time import perf_counter
from typing import Any

import psutil

from teamster.cli.lab.experiments import Case
from teamster.cli.ways import Candidate, Run, run_one
from teamster.kinds import label
from teamster.machine.gil import GilSampler, GilShare, has_gil
from teamster.spine.trace.recording import record
from teamster.spine.trace.timeline import Timeline
from teamster.tasks.pool import Pool

WAYS: tuple[Candidate, ...] = (
    ("serial", 1),
    ("thread", 2),
    ("thread", 4),
    ("process", 2),
    ("process", 4),
    ("auto", None),
)
"""Backend and workers; the plain loop is first, "auto" last."""

EVEN = 1.02  # from so many times the speed of another on, one is the faster of the two

_WARM_S = 0.35  # enough samples of the GIL for an error of some 3%
_FEWEST = 8  # as many items as the widest way has workers, twice
# A round takes as long as so many plain loops, where nothing is faster than one
_LOOPS_A_ROUND = 6.0
_LEAST_S = 0.2  # shorter, the start of workers is all that is measured
_PATIENCE = 1.1  # a tenth over the limit is still in time
_MULTIPLE = 4  # no worker of four has an item less than another

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How long a lab may take.

    Attributes:
        target_s: seconds that the plain loop of each case should take.
        rounds: how often each way is run.
        limit_s: seconds for all together: on a machine that is busy otherwise the loops are shorter
            and the rounds fewer.

    Example:
        >>> Sizes(1.2, 1).rounds
        1
    """

    target_s: float
    rounds: int
    limit_s: float = math.inf

    def within(self, left_s: float, cases: int) -> Sizes:
        """The same, shorter where that is needed to keep the limit.

        Args:
            left_s: seconds that are left.
            cases: how many cases are to come.

        Returns:
            Sizes for the next case.

        Example:
            >>> Sizes(3.0, 2).within(36.0, 3)
            Sizes(target_s=1.0, rounds=2, limit_s=12.0)
        """
        limit_s = left_s / cases
        loop_s = limit_s / self.rounds / _LOOPS_A_ROUND
        return Sizes(min(self.target_s, max(loop_s, _LEAST_S)), self.rounds, limit_s)


@dataclass(frozen=True, slots=True)
class LabSetting:
    """Where a lab takes place.

    Attributes:
        cores: usable cores.
        budget: CPUs' worth of time, a fraction.
        place: an address or a folder, for the inputs.
        aside_pid: a process below this one, with processor time that is not ours; 0 for none.

    Example:
        >>> LabSetting(2, 2.0, "/tmp").aside_pid
        0
    """

    cores: int
    budget: float
    place: str
    aside_pid: int = 0


@dataclass(frozen=True, slots=True)
class Measured:
    """What one way took.

    Attributes:
        way: as in "thread(4)" or "auto".
        run: the median round.
        rounds_s: seconds of all rounds, the fastest first.
        others_cpu: processors that other programs of the machine used meanwhile, on average.
        reason: why "auto" chose what it chose; empty for the others.
        timeline: of the median round.
        expected: the speed-up that simple theory expects; for "auto" that of the best of the
            others.

    Example:
        >>> run = Run("thread", "thread", 2, 10, 0, 0.5, 0.1, 1.0, 0)
        >>> Measured("thread(2)", run, (0.5,), 0.0, "", Timeline(0, 1, 0.0, ("",), ()), 2.0).is_auto
        False
    """

    way: str
    run: Run
    rounds_s: tuple[float, ...]
    others_cpu: float
    reason: str
    timeline: Timeline
    expected: float

    @property
    def is_auto(self) -> bool:
        """Whether Teamster chose."""
        return self.run.asked == "auto"

    @property
    def item_cpu_s(self) -> float:
        """Seconds of processor time an item."""
        return self.run.cpu * self.run.seconds / max(1, self.run.items)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What all ways took for one case.

    Attributes:
        case: what was run.
        items: how many inputs.
        item_s: seconds of an item, called directly.
        gil: share of the time that a plain loop holds the GIL; None when that cannot be seen.
        budget: CPUs' worth of time that there was.
        measured: one for each way, the plain loop first and "auto" last.

    Example:
        >>> Outcome.__dataclass_fields__["measured"].name
        'measured'
    """

    case: Case
    items: int
    item_s: float
    gil: GilShare | None
    budget: float
    measured: tuple[Measured, ...]

    @property
    def loop(self) -> Measured:
        """The plain loop."""
        return self.measured[0]

    @property
    def auto(self) -> Measured:
        """What Teamster chose."""
        return self.measured[-1]

    @property
    def fixed(self) -> tuple[Measured, ...]:
        """All but "auto"."""
        return self.measured[:-1]

    @property
    def fastest(self) -> Measured:
        """The fastest of all, "auto" only where it was so by more than chance."""
        return self.auto if self.closeness >= EVEN else self.best

    @property
    def best(self) -> Measured:
        """The fastest that is not "auto"."""
        return min(self.fixed, key=lambda each: each.run.seconds)

    @property
    def closeness(self) -> float:
        """Speed of "auto" as a share of that of the best; above 1 where it was faster."""
        return self.best.run.seconds / self.auto.run.seconds

    def speedup(self, each: Measured) -> float:
        """How many times as fast as the plain loop.

        Args:
            each: one of `measured`.

        Returns:
            1.0 for the loop itself.
        """
        return self.loop.run.seconds / each.run.seconds


def way_name(way: Candidate) -> str:
    """What a way is called.

    Args:
        way: Backend and workers.

    Returns:
        As in "thread(4)".

    Example:
        >>> [way_name(way) for way in WAYS]
        ['serial', 'thread(2)', 'thread(4)', 'process(2)', 'process(4)', 'auto']
    """
    backend, workers = way
    return label(backend, workers)


def run_case(case: Case, setting: LabSetting, sizes: Sizes, tell: Tell) -> Outcome:
    """Run a case in every way.

    Args:
        case: What to run.
        setting: Where.
        sizes: How much of it.
        tell: Called with the name of each way before it runs.

    Returns:
        What was measured.

    Example:
        >>> from teamster.cli.lab.experiments import EXPERIMENTS
        >>> case, setting = EXPERIMENTS["loop"].cases[0], LabSetting(2, 2.0, "")
        >>> outcome = run_case(case, setting, Sizes(0.0, 1), lambda way: None)
        >>> [each.way for each in outcome.measured]
        ['serial', 'thread(2)', 'thread(4)', 'process(2)', 'process(4)', 'auto']
    """
    with _blas_threads_as_they_are():
        tell("warm-up")
        item_s, gil = _calibrate(case, setting, min(_WARM_S, sizes.target_s))
        items = _count(sizes.target_s, item_s)
        inputs = [case.make_input(number, setting.place, setting.cores) for number in range(items)]
        tries = _run_rounds(case, inputs, setting, sizes, tell)
    fixed = [_middle(tries[way]) for way in WAYS[:-1]]
    auto = replace(_middle(tries[WAYS[-1]]), expected=max(each.expected for each in fixed))
    return Outcome(case, items, item_s, gil, setting.budget, (*fixed, auto))


def _run_rounds(
    case: Case, inputs: Sequence[Any], setting: LabSetting, sizes: Sizes, tell: Tell
) -> dict[Candidate, list[Measured]]:
    with Pool("process", 1, progress=False) as first:
        # Starts what serves all process pools, which the first would pay for
        first.map(abs, [0])
    tries: dict[Candidate, list[Measured]] = {way: [] for way in WAYS}
    began = perf_counter()
    for number in range(1, sizes.rounds + 1):
        for way in WAYS:
            tell(
                way_name(way) + (f", round {number} of {sizes.rounds}" if sizes.rounds > 1 else "")
            )
            tries[way].append(_try(case, inputs, way, setting))
        if (perf_counter() - began) * (number + 1) / number > _PATIENCE * sizes.limit_s:
            # There is no time for another
            break
    return tries


def _calibrate(case: Case, setting: LabSetting, seconds: float) -> tuple[float, GilShare | None]:
    """Call the function here for a while.

    The first call, which imports and fills caches, does not count.
    """
    case.function(case.make_input(0, setting.place, setting.cores))
    took: list[float] = []
    with GilSampler() as sampler:
        over = perf_counter() + seconds
        while len(took) < 2 or perf_counter() < over:
            began = perf_counter()
            case.function(case.make_input(len(took), setting.place, setting.cores))
            took.append(perf_counter() - began)
    return median(took), sampler.share()


def _count(target_s: float, item_s: float) -> int:
    return max(_FEWEST, _MULTIPLE * round(target_s / item_s / _MULTIPLE))


def _try(case: Case, inputs: Sequence[Any], way: Candidate, setting: LabSetting) -> Measured:
    aside = psutil.Process(setting.aside_pid) if setting.aside_pid else None
    before_s, busy_s = _cpu_s(aside), _all_cpu_s()
    with record() as recording:
        run = run_one(case.function, inputs, way)
    aside_s = _cpu_s(aside) - before_s
    others = max(0.0, (_all_cpu_s() - busy_s) / run.seconds - run.cpu)
    run = replace(run, cpu=max(0.0, run.cpu - aside_s / run.seconds))
    reason = ""
    if run.asked == "auto" and recording.timeline.jobs:
        reason = str(recording.timeline.jobs[-1].facts.get("plan", {}).get("reason", ""))
    expected = (
        1.0
        if run.backend == "serial"
        else case.expect(run.backend, run.workers, setting.budget, has_gil())
    )
    return Measured(
        way_name(way), run, (run.seconds,), others, reason, recording.timeline, expected
    )


def _middle(tries: Sequence[Measured]) -> Measured:
    ordered = sorted(tries, key=lambda each: each.run.seconds)
    return replace(
        ordered[(len(ordered) - 1) // 2], rounds_s=tuple(each.run.seconds for each in ordered)
    )


def _cpu_s(process: psutil.Process | None) -> float:
    if process is None:
        return 0.0
    times = process.cpu_times()
    return times.user + times.system


def _all_cpu_s() -> float:
    """Processor time of the whole machine, and what a hypervisor has given to other machines."""
    times = psutil.cpu_times()
    return sum(
        getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal")
    )


def _blas_threads_as_they_are() -> Any:
    """Put the number of BLAS threads back at the end.

    The function of an experiment sets it for all of the process.
    """
    if "numpy" not in sys.modules:
        return nullcontext()
    from threadpoolctl import threadpool_limits

    return threadpool_limits(None)
