# SPDX-License-Identifier: BSD-3-Clause
"""What steps took: sums by phase and by replica, on a clock that the test turns."""

from __future__ import annotations

import pytest

from teamster.parallel import step_report as timing
from teamster.parallel.step_report import PHASES, StepReport, StepTimer

SECOND = 1_000_000_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Its only entry is the time now, in nanoseconds."""
    now = [0]
    monkeypatch.setattr(timing, "perf_counter_ns", lambda: now[0])
    monkeypatch.setattr(timing, "note", lambda *_: None)
    return now


def step(told: StepTimer, clock: list[int], forward: list[int]) -> None:
    """One step: a second of scatter, then replicas at once for so many seconds."""
    told.begin_step(len(forward))
    began = clock[0]
    clock[0] = began + SECOND
    told.note_phase("scatter", -1, began)
    began = clock[0]
    for index, seconds in enumerate(forward):
        clock[0] = began + seconds * SECOND
        told.note_phase("forward", index, began, seconds * SECOND)
    clock[0] = began + max(forward) * SECOND


def test_of_replicas_that_run_at_once_the_longest_counts(clock: list[int]) -> None:
    told = StepTimer()
    step(told, clock, [2, 5])
    step(told, clock, [4, 1])
    report = told.read()
    assert (report.steps, report.replicas) == (2, 2)
    assert report.seconds == {"scatter": 2.0, "forward": 9.0}
    assert report.by_replica == {0: 6.0, 1: 6.0}
    assert told.latest == {0: 4 * SECOND, 1: 1 * SECOND}


def test_reading_twice_counts_nothing_twice(clock: list[int]) -> None:
    told = StepTimer()
    step(told, clock, [2, 5])
    assert told.read() == told.read()


def test_how_many_replicas_computed_at_one_time(clock: list[int]) -> None:
    told = StepTimer()
    assert told.at_once == 1.0  # one replica, so far
    step(told, clock, [4, 2])
    assert told.at_once == pytest.approx(1.5)


def test_a_report_prints_every_phase_and_the_imbalance() -> None:
    report = StepReport(2, 2, {"forward": 0.2, "gather": 0.01}, {0: 0.2, 1: 0.1})
    text = str(report)
    assert "2 steps on 2 replicas" in text
    assert all(phase in text for phase in PHASES)
    assert "100.000" in text
    assert "busiest / laziest 2.00" in text
    assert report.imbalance == 2.0


@pytest.mark.parametrize("by_replica", [{}, {0: 0.0, 1: 0.0}, {0: 3.0}])
def test_without_two_that_have_worked_nothing_is_out_of_balance(
    by_replica: dict[int, float],
) -> None:
    assert StepReport(0, 1, {}, by_replica).imbalance == 1.0
    assert "0 steps on 1 replicas" in str(StepReport(0, 1, {}, by_replica))
