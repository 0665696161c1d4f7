# SPDX-License-Identifier: BSD-3-Clause
"""From figures to sentences: the figures decide."""

from __future__ import annotations

from dataclasses import replace

import pytest

from teamster.cli.lab.experiments import EXPERIMENTS
from teamster.cli.lab.runs import Measured, Outcome
from teamster.cli.lab.summary import describe_auto, describe_result, describe_work, lesson_of
from teamster.cli.lab.words import describe_others, judge, start_seconds
from teamster.cli.ways import Run
from teamster.machine.gil import GilShare
from teamster.spine.trace.timeline import Mark, Timeline

EMPTY = Timeline(0, 10**9, 0.0, ("",), ())


def measured(backend: str, workers: int, seconds: float, **how: float) -> Measured:
    cpu, first_s, expected = how.get("cpu", 1.0), how.get("first_s", 0.1), how.get("expected", 1.0)
    run = Run(backend, backend, workers, 20, int(how.get("failed", 0)), seconds, first_s, cpu, 0)
    way = "serial" if backend == "serial" else f"{backend}({workers})"
    return Measured(way, run, (seconds,), how.get("others", 0.0), "", EMPTY, expected)


def auto(backend: str, workers: int, seconds: float, at_s: float = 0.0, **how: float) -> Measured:
    each = measured(backend, workers, seconds, **how)
    timeline = replace(EMPTY, marks=(Mark(int(at_s * 1e9), f"auto: {backend}"),) if at_s else ())
    return replace(
        each,
        way="auto",
        run=replace(each.run, asked="auto"),
        timeline=timeline,
        reason="it seemed right",
    )


def outcome_of(*ways: Measured, gil: float | None = 1.0, chosen: Measured | None = None) -> Outcome:
    share = None if gil is None else GilShare(gil, 0.01, 300)
    loop = measured("serial", 1, 2.0)
    return Outcome(
        EXPERIMENTS["loop"].cases[0],
        20,
        0.1,
        share,
        2.0,
        (loop, *ways, chosen or auto("serial", 1, 2.0)),
    )


@pytest.mark.parametrize(
    ("seconds", "word"), [(1.0, "as expected"), (1.2, "as expected"), (1.6, "less"), (0.7, "more")]
)
def test_a_verdict_follows_the_times(seconds: float, word: str) -> None:
    outcome = outcome_of(measured("process", 2, seconds, expected=2.0, cpu=1.9))
    assert judge(outcome, outcome.measured[1]).word == word


def test_the_loop_is_what_all_are_compared_with() -> None:
    outcome = outcome_of()
    assert judge(outcome, outcome.loop).word == "start"


def test_a_slow_start_is_named_with_what_it_cost() -> None:
    outcome = outcome_of(measured("process", 2, 1.5, expected=2.0, first_s=0.6, cpu=1.2))
    each = outcome.measured[1]
    assert start_seconds(outcome, each) == pytest.approx(0.5)
    assert (
        "took 33% of the run. Without that it would be 2.0 times as fast."
        in judge(outcome, each).why
    )


def test_the_lock_is_named_for_threads_only() -> None:
    outcome = outcome_of(
        measured("thread", 2, 2.0, expected=2.0), measured("process", 2, 2.0, expected=2.0), gil=0.8
    )
    thread, process = (judge(outcome, each).why for each in outcome.measured[1:3])
    assert (
        "holds the GIL for 80% of its time, so threads cannot be more than 1.2 times as fast"
        in thread
    )
    assert "GIL" not in process


def test_full_processors_and_dearer_items_are_named() -> None:
    outcome = outcome_of(measured("process", 4, 1.6, expected=2.0, cpu=1.95))
    why = judge(outcome, outcome.measured[1]).why
    assert "It kept 1.9 of 2 processors busy" in why or "It kept 2.0 of 2 processors busy" in why
    assert "An item cost 1.6 times the processor time" in why


def test_other_programs_are_named_where_they_had_the_processors() -> None:
    outcome = outcome_of(measured("process", 2, 1.9, expected=2.0, cpu=1.0, others=0.9))
    assert "other programs kept 0.9 processors busy" in judge(outcome, outcome.measured[1]).why


def test_a_busy_machine_is_named_once_for_all() -> None:
    idle = outcome_of(measured("process", 2, 1.9, expected=2.0, cpu=1.0, others=0.2))
    busy = outcome_of(measured("process", 2, 1.9, expected=2.0, cpu=1.0, others=0.9))
    assert describe_others([idle]) == ""
    assert describe_others([idle, busy]).startswith(
        "The machine was not idle: during 1 of 6 runs other programs kept 0.9 to 0.9"
    )


def test_what_no_figure_explains_is_called_so() -> None:
    outcome = outcome_of(measured("process", 2, 1.9, expected=2.0, cpu=0.1))
    loop = replace(outcome.loop, run=replace(outcome.loop.run, cpu=0.1))
    outcome = replace(outcome, measured=(loop, *outcome.measured[1:]))
    assert "No figure that was measured explains it" in judge(outcome, outcome.measured[1]).why


def test_failures_are_told() -> None:
    outcome = outcome_of(measured("process", 2, 1.0, expected=2.0, failed=3))
    assert "3 of 20 items failed" in judge(outcome, outcome.measured[1]).why


def test_more_workers_than_the_fixed_ways_explain_more() -> None:
    outcome = outcome_of(
        measured("thread", 2, 1.0, expected=2.0), chosen=auto("thread", 64, 0.2, expected=2.0)
    )
    assert "64 workers, more than any" in judge(outcome, outcome.auto).why


def test_gaps_are_named_where_nothing_was_to_be_gained() -> None:
    outcome = outcome_of(measured("thread", 2, 1.5, expected=1.0), gil=0.1)
    assert "Another worker fills those gaps" in judge(outcome, outcome.measured[1]).why


@pytest.mark.parametrize(
    ("gil", "cpu", "text"),
    [
        (0.99, 1.0, "take turns"),
        (0.0, 0.1, "this is waiting"),
        (0.1, 1.0, "outside of Python"),
        (None, 1.0, "cannot be seen"),
    ],
)
def test_the_kind_of_work_follows_the_figures(gil: float | None, cpu: float, text: str) -> None:
    outcome = outcome_of(gil=gil)
    loop = replace(outcome.loop, run=replace(outcome.loop.run, cpu=cpu))
    assert text in describe_work(replace(outcome, measured=(loop, outcome.auto)))


def test_the_result_names_groups_and_the_fastest() -> None:
    ways = (
        measured("thread", 2, 2.0),
        measured("process", 2, 1.05, expected=2.0),
        measured("process", 4, 1.8, expected=2.0),
    )
    text = " ".join(describe_result(outcome_of(*ways)))
    assert (
        "About as fast as expected: thread(2) and process(2). Slower than expected: process(4)."
        in text
    )
    assert "The fastest was process(2): 1.05 s, 1.9 times" in text


def test_auto_is_called_the_fastest_where_it_was() -> None:
    text = " ".join(
        describe_result(outcome_of(measured("thread", 4, 1.0), chosen=auto("thread", 64, 0.5)))
    )
    assert "The fastest was auto: thread(64): 500 ms, 4.0 times" in text
    assert "the fastest of the fixed ways was thread(4)" in text
    even = " ".join(
        describe_result(outcome_of(measured("thread", 4, 1.0), chosen=auto("thread", 4, 0.99)))
    )
    assert "The fastest was thread(4)" in even


def test_nothing_faster_is_called_so() -> None:
    text = " ".join(describe_result(outcome_of(measured("thread", 2, 1.95))))
    assert "Nothing was more than 3% faster than the plain loop" in text


@pytest.mark.parametrize(
    ("chosen", "text"),
    [
        (auto("process", 2, 1.25, 0.2), "after 200 ms (its reason: it seemed right)"),
        (auto("process", 2, 1.25, 0.2), "80% of the speed of process(2)"),
        (auto("process", 2, 1.0), "as fast as process(2)"),
        (auto("thread", 64, 0.5), "2.00 times as fast as process(2)"),
        (
            auto("serial", 1, 2.0),
            "50% of the speed of process(2), the best of the fixed ways, which was 1 s faster",
        ),
    ],
)
def test_auto_is_compared_with_the_best(chosen: Measured, text: str) -> None:
    assert text in describe_auto(
        outcome_of(measured("process", 2, 1.0, expected=2.0), chosen=chosen)
    )


def test_the_lesson_depends_on_what_was_measured() -> None:
    good = outcome_of(
        measured("thread", 2, 2.0),
        measured("thread", 4, 3.0),
        measured("process", 2, 1.0, expected=2.0),
    )
    # To lose where nothing was to be gained supports it, too
    assert lesson_of("Take processes.", (good,)) == "Take processes."
    bad = outcome_of(
        measured("thread", 2, 1.0),
        measured("process", 2, 1.0, expected=2.0),
        measured("process", 4, 1.0, expected=2.0),
    )
    said = lesson_of("Take processes.", (bad,))
    assert said == (
        "In theory: take processes. Here 2 of 3 ways followed that; thread(2) did not, for reasons "
        "that are given above."
    )
