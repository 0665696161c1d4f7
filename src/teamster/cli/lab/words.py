# SPDX-License-Identifier: BSD-3-Clause
"""From numbers to sentences: did it come as expected, and if not, which figure explains it?

Nothing here knows what an experiment "should" show. A cause is named only where a measured figure
speaks for it; where none does, the text says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from teamster.cli.lab.runs import Measured, Outcome
from teamster.units import show_seconds

# Of the expected speed-up: what a second run may differ by, and a little more
_LESS, _MORE = 0.8, 1.25
WAITS = 0.5  # of the time: more than half is mostly
_FULL = 0.85  # of the CPU budget: no more to be had
_COSTS_MORE = 1.15  # times the loop's processor time: more than runs differ by
_NOTICEABLE = 0.08  # of a run's time
_OTHERS = 0.25  # processors
_FEW = 0.1  # of the runs


@dataclass(frozen=True, slots=True)
class Judgement:
    """How a measurement stands to what was expected.

    Attributes:
        word: "as expected", "less" or "more"; "start" for the plain loop, which all are compared
            with.
        why: sentences; empty where there is nothing to explain.

    Example:
        >>> Judgement("as expected", "").word
        'as expected'
    """

    word: str
    why: str


def judge(outcome: Outcome, each: Measured) -> Judgement:
    """Compare what was measured with what was expected.

    Args:
        outcome: Of the case.
        each: One of its ways.

    Returns:
        A word, and why.

    Example:
        >>> from teamster.cli.lab.experiments import EXPERIMENTS
        >>> from teamster.cli.lab.runs import LabSetting, Sizes, run_case
        >>> case, setting = EXPERIMENTS["loop"].cases[0], LabSetting(2, 2.0, "")
        >>> outcome = run_case(case, setting, Sizes(0.0, 1), lambda way: None)
        >>> judge(outcome, outcome.loop).word
        'start'
    """
    if each is outcome.loop:
        return Judgement("start", _failures(each))
    ratio = outcome.speedup(each) / each.expected
    if ratio < _LESS:
        return Judgement("less", _join(_failures(each), *(_why_less(outcome, each) or [_UNKNOWN])))
    if ratio > _MORE:
        return Judgement("more", _join(_failures(each), _why_more(outcome, each)))
    return Judgement("as expected", _failures(each))


_UNKNOWN = (
    "No figure that was measured explains it; other programs on the machine are the usual cause. "
    "Run it again to see."
)


def _why_less(outcome: Outcome, each: Measured) -> list[str]:
    """Causes that figures speak for, the strongest first."""
    run, said = each.run, []
    start_s = start_seconds(outcome, each)
    if start_s > _NOTICEABLE * run.seconds:
        without = outcome.loop.run.seconds / (run.seconds - start_s)
        said.append(
            f"The first result came after {show_seconds(run.first_s)}, though an item takes "
            f"{show_seconds(outcome.item_s)}: starting the workers and importing what the function "
            f"needs took {start_s / run.seconds:.0%} of the run. Without that it would be "
            f"{without:.1f} times as fast."
        )
    measuring_s = choice_seconds(each)
    if measuring_s > _NOTICEABLE * run.seconds:
        said.append(
            f"It measured until {show_seconds(measuring_s)} before it chose; in a longer job that "
            "weighs less."
        )
    if said_of_gil := _gil_limit(outcome, each):
        said.append(said_of_gil)
    used, most = run.cpu / outcome.budget, outcome.budget / max(outcome.loop.run.cpu, 1e-9)
    if 1 < most < 0.97 * each.expected:
        said.append(
            f"The plain loop used {outcome.loop.run.cpu:.2f} of {outcome.budget:.3g} processors "
            f"already, the measuring included, so they allow about {most:.1f} times as fast."
        )
    if used > _FULL and each.expected > 1:
        said.append(
            f"It kept {run.cpu:.1f} of {outcome.budget:.3g} processors busy, so there was hardly "
            "more to be had."
        )
    dearer = each.item_cpu_s / outcome.loop.item_cpu_s if outcome.loop.item_cpu_s else 1.0
    if dearer > _COSTS_MORE and used > WAITS:
        said.append(
            f"An item cost {dearer:.1f} times the processor time that it costs in the plain loop: "
            "the workers share memory, caches and locks of the system, and switching between them "
            "costs time."
        )
    if crowded := _crowd(outcome, each):
        said.append(crowded)
    if (
        not said
        and outcome.loop.run.cpu > WAITS
        and run.cpu < 0.7 * min(run.workers, outcome.budget)
    ):
        said.append(
            f"Only {run.cpu:.1f} processors were in use: the workers waited for something else, "
            "such as a lock or the disk."
        )
    return said


def _gil_limit(outcome: Outcome, each: Measured) -> str:
    """Threads hold the lock one at a time."""
    gil = outcome.gil
    if each.run.backend != "thread" or gil is None or gil.held < 0.05:
        return ""
    limit = 1 / gil.held
    if limit > 1.5 * each.expected:
        return ""
    return (
        f"One item alone holds the GIL for {gil.held:.0%} of its time, so threads cannot be more "
        f"than {limit:.1f} times as fast."
    )


def _why_more(outcome: Outcome, each: Measured) -> str:
    if each.is_auto and each.run.backend != "serial":
        more = [
            known
            for known in outcome.fixed
            if known.run.backend == each.run.backend and known.run.workers < each.run.workers
        ]
        if more:
            return f"It uses up to {each.run.workers} workers, more than any of the ways above."
    if crowded := _crowd(outcome, outcome.loop):
        return f"The plain loop was disturbed. {crowded}"
    if each.expected <= 1 and outcome.gil is not None and each.run.workers > 1:
        return (
            "The theory says that one worker keeps everything busy that can be used, and it does "
            "not quite: between two items, and in parts of an item, only one processor does useful "
            f"work (an item holds the GIL for {outcome.gil.held:.0%} of its time). Another worker "
            "fills those gaps."
        )
    return (
        "The theory leaves something out here, or the plain loop was slower than usual. Run it "
        "again to see."
    )


def _crowd(outcome: Outcome, each: Measured) -> str:
    if each.others_cpu < _OTHERS or each.others_cpu + each.run.cpu < _FULL * outcome.budget:
        return ""
    return f"Meanwhile other programs kept {each.others_cpu:.1f} processors busy."


def describe_others(outcomes: Sequence[Outcome]) -> str:
    """Whether other programs disturbed the measurement.

    Args:
        outcomes: Of all cases.

    Returns:
        Sentences; empty where they did not, or hardly.

    Example:
        >>> describe_others([])
        ''
    """
    every = [(outcome, each) for outcome in outcomes for each in outcome.measured]
    disturbed = [each.others_cpu for outcome, each in every if _crowd(outcome, each)]
    if len(disturbed) <= _FEW * len(every):
        return ""
    return (
        f"The machine was not idle: during {len(disturbed)} of {len(every)} runs other programs "
        f"kept {min(disturbed):.1f} to {max(disturbed):.1f} processors busy, which these runs "
        "could not use. Take the figures with care, and run it again when nothing else runs."
    )


def _failures(each: Measured) -> str:
    return (
        f"{each.run.failed:,} of {each.run.items:,} items failed, so the time means little."
        if each.run.failed
        else ""
    )


def start_seconds(outcome: Outcome, each: Measured) -> float:
    """Seconds until the first result that are not the item itself.

    Args:
        outcome: Of the case.
        each: One of its ways.

    Returns:
        0 at least. Where more workers compute than there are processors, an item takes as many
        times longer.
    """
    crowd = (
        max(1.0, each.run.workers / outcome.budget)
        if outcome.loop.run.cpu > WAITS and not each.is_auto
        else 1.0
    )
    return max(0.0, each.run.first_s - crowd * outcome.item_s)


def choice_seconds(each: Measured) -> float:
    """When "auto" made its last choice.

    Args:
        each: One of the ways.

    Returns:
        Seconds since the beginning of its timeline; 0 where nothing was chosen in its course.
    """
    chosen = (
        [mark.at_ns for mark in each.timeline.marks if mark.text.startswith("auto")]
        if each.is_auto
        else []
    )
    return (max(chosen) - each.timeline.begin_ns) / 1e9 if chosen else 0.0


def _join(*texts: str) -> str:
    return " ".join(text for text in texts if text)
