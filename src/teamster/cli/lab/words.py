# SPDX-License-Identifier: BSD-3-Clause
"""From numbers to sentences: did it come as expected, and if not, what among the measured figures explains it?

Nothing here knows what an experiment "should" show. A cause is named only where a measured figure speaks for it; where none
does, the text says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from teamster.cli.lab.runs import EVEN, Measured, Outcome
from teamster.spine.plan.plan import show_seconds

_LESS, _MORE = 0.8, 1.25  # of the expected speed-up: what a second run may differ by, and a little more
_CLEAR = 1.10  # a speed-up that is worth a word
_WAITS, _HELD = 0.5, 0.5  # of the time: more than half is mostly
_FULL = 0.85  # of the CPU budget: no more to be had
_COSTS_MORE = 1.15  # times the loop's processor time: more than runs differ by
_NOTICEABLE = 0.08  # of a run's time
_OTHERS = 0.25  # processors
_FEW_NAMES = 3  # as many as a sentence lists
_FEW = 0.1  # of the runs


@dataclass(frozen=True, slots=True)
class Judgement:
    """How a measurement stands to what was expected.

    Attributes:
        word: "as expected", "less" or "more"; "start" for the plain loop, which all are compared with.
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
        >>> outcome = run_case(EXPERIMENTS["loop"].cases[0], LabSetting(2, 2.0, ""), Sizes(0.0, 1), lambda way: None)
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


_UNKNOWN = "No figure that was measured explains it; other programs on the machine are the usual cause. Run it again to see."


def _why_less(outcome: Outcome, each: Measured) -> list[str]:
    """Causes that figures speak for, the strongest first."""
    run, said = each.run, []
    start_s = start_seconds(outcome, each)
    if start_s > _NOTICEABLE * run.seconds:
        without = outcome.loop.run.seconds / (run.seconds - start_s)
        said.append(
            f"The first result came after {show_seconds(run.first_s)}, though an item takes {show_seconds(outcome.item_s)}:"
            f" starting the workers and importing what the function needs took {start_s / run.seconds:.0%} of the run."
            f" Without that it would be {without:.1f} times as fast."
        )
    measuring_s = choice_seconds(each)
    if measuring_s > _NOTICEABLE * run.seconds:
        said.append(f"It measured until {show_seconds(measuring_s)} before it chose; in a longer job that weighs less.")
    if said_of_gil := _gil_limit(outcome, each):
        said.append(said_of_gil)
    used, most = run.cpu / outcome.budget, outcome.budget / max(outcome.loop.run.cpu, 1e-9)
    if 1 < most < 0.97 * each.expected:
        said.append(
            f"The plain loop used {outcome.loop.run.cpu:.2f} of {outcome.budget:.3g} processors already, the measuring included, so"
            f" they allow about {most:.1f} times as fast."
        )
    if used > _FULL and each.expected > 1:
        said.append(f"It kept {run.cpu:.1f} of {outcome.budget:.3g} processors busy, so there was hardly more to be had.")
    dearer = each.item_cpu_s / outcome.loop.item_cpu_s if outcome.loop.item_cpu_s else 1.0
    if dearer > _COSTS_MORE and used > _WAITS:
        said.append(
            f"An item cost {dearer:.1f} times the processor time that it costs in the plain loop: the workers share memory, caches"
            " and locks of the system, and switching between them costs time."
        )
    if crowded := _crowd(outcome, each):
        said.append(crowded)
    if not said and outcome.loop.run.cpu > _WAITS and run.cpu < 0.7 * min(run.workers, outcome.budget):
        said.append(
            f"Only {run.cpu:.1f} processors were in use: the workers waited for something else, such as a lock or the disk."
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
    return f"One item alone holds the GIL for {gil.held:.0%} of its time, so threads cannot be more than {limit:.1f} times as fast."


def _why_more(outcome: Outcome, each: Measured) -> str:
    if each.is_auto and each.run.backend != "serial":
        more = [known for known in outcome.fixed if known.run.backend == each.run.backend and known.run.workers < each.run.workers]
        if more:
            return f"It uses up to {each.run.workers} workers, more than any of the ways above."
    if crowded := _crowd(outcome, outcome.loop):
        return f"The plain loop was disturbed. {crowded}"
    if each.expected <= 1 and outcome.gil is not None and each.run.workers > 1:
        return (
            "The theory says that one worker keeps everything busy that can be used, and it does not quite: between two items,"
            " and in parts of an item, only one processor does useful work (an item holds the GIL for"
            f" {outcome.gil.held:.0%} of its time). Another worker fills those gaps."
        )
    return "The theory leaves something out here, or the plain loop was slower than usual. Run it again to see."


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
        f"The machine was not idle: during {len(disturbed)} of {len(every)} runs other programs kept {min(disturbed):.1f} to"
        f" {max(disturbed):.1f} processors busy, which these runs could not use. Take the figures with care, and run it again when"
        " nothing else runs."
    )


def _failures(each: Measured) -> str:
    return f"{each.run.failed:,} of {each.run.items:,} items failed, so the time means little." if each.run.failed else ""


def start_seconds(outcome: Outcome, each: Measured) -> float:
    """Seconds until the first result that are not the item itself.

    Args:
        outcome: Of the case.
        each: One of its ways.

    Returns:
        0 at least. Where more workers compute than there are processors, an item takes as many times longer.
    """
    crowd = max(1.0, each.run.workers / outcome.budget) if outcome.loop.run.cpu > _WAITS and not each.is_auto else 1.0
    return max(0.0, each.run.first_s - crowd * outcome.item_s)


def describe_work(outcome: Outcome) -> str:
    """What kind of work it is, by the figures of the plain loop.

    Args:
        outcome: Of the case.

    Returns:
        Sentences.

    Example:
        >>> from teamster.cli.lab.experiments import EXPERIMENTS
        >>> from teamster.cli.lab.runs import LabSetting, Sizes, run_case
        >>> outcome = run_case(EXPERIMENTS["loop"].cases[0], LabSetting(2, 2.0, ""), Sizes(0.0, 1), lambda way: None)
        >>> describe_work(outcome)
        'An item takes ...'
    """
    cpu, gil = outcome.loop.run.cpu, outcome.gil
    took = f"An item takes {show_seconds(outcome.item_s)}. In the plain loop {cpu:.2f} processors were in use"
    if gil is None:
        return f"{took}; how long the GIL was held cannot be seen on this system."
    took += ", and the GIL was hardly ever held" if gil.held < 0.02 else f", and the GIL was held for {gil.held:.0%} of the time"
    took += f" (+- {max(0.01, gil.error):.0%}, {gil.samples:,} samples)."
    if gil.held >= _HELD:
        return f"{took} So this is work in Python itself: threads have to take turns."
    if cpu < _WAITS:
        return f"{took} So this is waiting: neither a processor nor the GIL is needed for most of the time."
    return f"{took} So this is work for processors outside of Python, and leaves the GIL to other threads for most of the time."


def describe_result(outcome: Outcome) -> list[str]:
    """What came out of a case: as expected or not, which was the fastest, what the start of processes cost.

    Args:
        outcome: Of the case.

    Returns:
        Sentences, one for each subject.

    Example:
        >>> from teamster.cli.lab.experiments import EXPERIMENTS
        >>> from teamster.cli.lab.runs import LabSetting, Sizes, run_case
        >>> outcome = run_case(EXPERIMENTS["loop"].cases[0], LabSetting(2, 2.0, ""), Sizes(0.0, 1), lambda way: None)
        >>> describe_result(outcome)[1].startswith(("The fastest was", "Nothing was"))
        True
    """
    judged = [(each, judge(outcome, each).word) for each in outcome.fixed[1:]]
    agree = [each.way for each, word in judged if word == "as expected"]
    less = [each.way for each, word in judged if word == "less"]
    more = [each.way for each, word in judged if word == "more"]
    groups = (("About as fast as expected", agree), ("Slower than expected", less), ("Faster than expected", more))
    said = [" ".join(f"{phrase}: {_listed(names)}." for phrase, names in groups if names)]
    first = outcome.fastest
    speedup = outcome.speedup(first)
    if first is outcome.loop or speedup < _CLEAR:
        said.append(f"Nothing was more than {max(0.0, speedup - 1):.0%} faster than the plain loop.")
    else:
        fixed = f"; the fastest of the fixed ways was {outcome.best.way}" if first.is_auto else ""
        took = show_seconds(first.run.seconds)
        said.append(f"The fastest was {first.run.name}: {took}, {speedup:.1f} times as fast as the plain loop{fixed}.")
    starts = {each.way: start_seconds(outcome, each) for each in outcome.fixed if each.run.backend == "process"}
    costs = " and ".join(f"{show_seconds(seconds)} in {way}" for way, seconds in starts.items())
    return [*said, f"Starting processes, and importing in them what the function needs, delayed the first result by {costs}."]


def describe_auto(outcome: Outcome) -> str:
    """What "auto" chose and how close it came.

    Args:
        outcome: Of the case.

    Returns:
        Sentences.

    Example:
        >>> from teamster.cli.lab.experiments import EXPERIMENTS
        >>> from teamster.cli.lab.runs import LabSetting, Sizes, run_case
        >>> outcome = run_case(EXPERIMENTS["loop"].cases[0], LabSetting(2, 2.0, ""), Sizes(0.0, 1), lambda way: None)
        >>> describe_auto(outcome)
        'Left to itself, Teamster chose ...'
    """
    auto, best, closeness = outcome.auto, outcome.best, outcome.closeness
    chose = auto.run.name.removeprefix("auto: ")
    when = f" after {show_seconds(choice_seconds(auto))}" if choice_seconds(auto) else ""
    reason = f" (its reason: {auto.reason})" if auto.reason else ""
    said = f"Left to itself, Teamster chose {chose}{when}{reason} and took {show_seconds(auto.run.seconds)} in all."
    if closeness >= EVEN:
        return f"{said} That is {closeness:.2f} times as fast as {best.way}, the best of the fixed ways."
    lost_s = auto.run.seconds - best.run.seconds
    if closeness >= 0.98:
        return f"{said} That is as fast as {best.way}, the best of the fixed ways."
    said += f" That is {closeness:.0%} of the speed of {best.way}, the best of the fixed ways"
    if chose == best.way:
        return f"{said}; the {show_seconds(lost_s)} between them are what finding out took, and chance."
    return f"{said}, which was {show_seconds(lost_s)} faster."


def lesson_of(lesson: str, outcomes: tuple[Outcome, ...]) -> str:
    """What to remember: the theory where the measurement agrees with it, and else that it does not.

    Args:
        lesson: What simple theory teaches.
        outcomes: Of all cases of the experiment.

    Returns:
        A sentence or two.

    Example:
        >>> lesson_of("Measure.", ())
        'Measure.'
    """
    every = [(outcome, each) for outcome in outcomes for each in outcome.fixed[1:]]
    off = [(outcome, each) for outcome, each in every if not _supports(outcome, each)]
    if not off:
        return lesson
    several = len(outcomes) > 1
    names = [f"{each.way} ({outcome.case.label})" if several else each.way for outcome, each in off]
    who = f"{_listed(names)} did not" if len(names) <= _FEW_NAMES else "the others did not"
    followed = f"{len(every) - len(off)} of {len(every)} ways followed that"
    return f"In theory: {lesson[0].lower()}{lesson[1:]} Here {followed}; {who}, for reasons that are given above."


def _supports(outcome: Outcome, each: Measured) -> bool:
    """A way that is to gain nothing supports that by losing, and one that is to gain by gaining even more."""
    word = judge(outcome, each).word
    return word == "as expected" or (word == "less") == (each.expected <= 1)


def choice_seconds(each: Measured) -> float:
    """When "auto" made its last choice.

    Args:
        each: One of the ways.

    Returns:
        Seconds since the beginning of its timeline; 0 where nothing was chosen in its course.
    """
    chosen = [mark.at_ns for mark in each.timeline.marks if mark.text.startswith("auto")] if each.is_auto else []
    return (max(chosen) - each.timeline.begin_ns) / 1e9 if chosen else 0.0


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _join(*texts: str) -> str:
    return " ".join(text for text in texts if text)
