# SPDX-License-Identifier: BSD-3-Clause
"""What a case shows, in sentences: its work, its result, what "auto" chose, the lesson."""

from __future__ import annotations

from teamster.cli.lab.runs import EVEN, Measured, Outcome
from teamster.cli.lab.words import WAITS, choice_seconds, judge, start_seconds
from teamster.units import show_seconds

_CLEAR = 1.10  # a speed-up that is worth a word
_HELD = 0.5  # of the time: more than half is mostly
_FEW_NAMES = 3  # as many as a sentence lists


def describe_work(outcome: Outcome) -> str:
    """What kind of work it is, by the figures of the plain loop.

    Args:
        outcome: Of the case.

    Returns:
        Sentences.

    Example:
        >>> from teamster.cli.lab.experiments import EXPERIMENTS
        >>> from teamster.cli.lab.runs import LabSetting, Sizes, run_case
        >>> case, setting = EXPERIMENTS["loop"].cases[0], LabSetting(2, 2.0, "")
        >>> outcome = run_case(case, setting, Sizes(0.0, 1), lambda way: None)
        >>> describe_work(outcome)
        'An item takes ...'
    """
    cpu, gil = outcome.loop.run.cpu, outcome.gil
    took = (
        f"An item takes {show_seconds(outcome.item_s)}. In the plain loop {cpu:.2f} processors "
        "were in use"
    )
    if gil is None:
        return f"{took}; how long the GIL was held cannot be seen on this system."
    took += (
        ", and the GIL was hardly ever held"
        if gil.held < 0.02
        else f", and the GIL was held for {gil.held:.0%} of the time"
    )
    took += f" (+- {max(0.01, gil.error):.0%}, {gil.samples:,} samples)."
    if gil.held >= _HELD:
        return f"{took} So this is work in Python itself: threads have to take turns."
    if cpu < WAITS:
        return (
            f"{took} So this is waiting: neither a processor nor the GIL is needed for most of the "
            "time."
        )
    return (
        f"{took} So this is work for processors outside of Python, and leaves the GIL to other "
        "threads for most of the time."
    )


def describe_result(outcome: Outcome) -> list[str]:
    """What came out of a case.

    The sentences say whether it is as expected, which way was the fastest, and what the start of
    processes cost.

    Args:
        outcome: Of the case.

    Returns:
        Sentences, one for each subject.

    Example:
        >>> from teamster.cli.lab.experiments import EXPERIMENTS
        >>> from teamster.cli.lab.runs import LabSetting, Sizes, run_case
        >>> case, setting = EXPERIMENTS["loop"].cases[0], LabSetting(2, 2.0, "")
        >>> outcome = run_case(case, setting, Sizes(0.0, 1), lambda way: None)
        >>> describe_result(outcome)[1].startswith(("The fastest was", "Nothing was"))
        True
    """
    judged = [(each, judge(outcome, each).word) for each in outcome.fixed[1:]]
    agree = [each.way for each, word in judged if word == "as expected"]
    less = [each.way for each, word in judged if word == "less"]
    more = [each.way for each, word in judged if word == "more"]
    groups = (
        ("About as fast as expected", agree),
        ("Slower than expected", less),
        ("Faster than expected", more),
    )
    said = [" ".join(f"{phrase}: {_listed(names)}." for phrase, names in groups if names)]
    first = outcome.fastest
    speedup = outcome.speedup(first)
    if first is outcome.loop or speedup < _CLEAR:
        said.append(
            f"Nothing was more than {max(0.0, speedup - 1):.0%} faster than the plain loop."
        )
    else:
        fixed = f"; the fastest of the fixed ways was {outcome.best.way}" if first.is_auto else ""
        took = show_seconds(first.run.seconds)
        said.append(
            f"The fastest was {first.run.name}: {took}, {speedup:.1f} times as fast as the plain "
            f"loop{fixed}."
        )
    starts = {
        each.way: start_seconds(outcome, each)
        for each in outcome.fixed
        if each.run.backend == "process"
    }
    costs = " and ".join(f"{show_seconds(seconds)} in {way}" for way, seconds in starts.items())
    return [
        *said,
        "Starting processes, and importing in them what the function needs, delayed the first "
        f"result by {costs}.",
    ]


def describe_auto(outcome: Outcome) -> str:
    """What "auto" chose and how close it came.

    Args:
        outcome: Of the case.

    Returns:
        Sentences.

    Example:
        >>> from teamster.cli.lab.experiments import EXPERIMENTS
        >>> from teamster.cli.lab.runs import LabSetting, Sizes, run_case
        >>> case, setting = EXPERIMENTS["loop"].cases[0], LabSetting(2, 2.0, "")
        >>> outcome = run_case(case, setting, Sizes(0.0, 1), lambda way: None)
        >>> describe_auto(outcome)
        'Left to itself, Teamster chose ...'
    """
    auto, best, closeness = outcome.auto, outcome.best, outcome.closeness
    chose = auto.run.name.removeprefix("auto: ")
    when = f" after {show_seconds(choice_seconds(auto))}" if choice_seconds(auto) else ""
    reason = f" (its reason: {auto.reason})" if auto.reason else ""
    said = (
        f"Left to itself, Teamster chose {chose}{when}{reason} and took "
        f"{show_seconds(auto.run.seconds)} in all."
    )
    if closeness >= EVEN:
        return (
            f"{said} That is {closeness:.2f} times as fast as {best.way}, the best of the fixed "
            "ways."
        )
    lost_s = auto.run.seconds - best.run.seconds
    if closeness >= 0.98:
        return f"{said} That is as fast as {best.way}, the best of the fixed ways."
    said += f" That is {closeness:.0%} of the speed of {best.way}, the best of the fixed ways"
    if chose == best.way:
        return (
            f"{said}; the {show_seconds(lost_s)} between them are what finding out took, and "
            "chance."
        )
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
    return (
        f"In theory: {lesson[0].lower()}{lesson[1:]} Here {followed}; {who}, for reasons that are "
        "given above."
    )


def _supports(outcome: Outcome, each: Measured) -> bool:
    """A way meant to gain nothing supports that by losing, one meant to gain by gaining more."""
    word = judge(outcome, each).word
    return word == "as expected" or (word == "less") == (each.expected <= 1)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
