# SPDX-License-Identifier: BSD-3-Clause
"""What steers "auto", as a table: evidence, rates and time in, a candidate out. Nothing runs."""

from __future__ import annotations

import pytest

from teamster.machine.gil import GilShare
from teamster.spine.plan.choice import Limits
from teamster.spine.plan.plan import Candidate, Evidence
from teamster.tasks.auto.steering import Steering, drift_of

HELD = GilShare(1.0, 0.01, 500)
FREE = GilShare(0.0, 0.01, 500)
START_S = {"thread": 0.0005, "process": 0.1}


def items(
    wall_s: float, *, cpu: float = 1.0, gil: GilShare | None = HELD, stays: str = ""
) -> Evidence:
    """Items of which one takes so long, and of that time a share on a processor."""
    return Evidence(100, wall_s, cpu * wall_s, cpu * wall_s, gil, 100, 100, 0.0, stays, "")


def after_caller(evidence: Evidence, horizon_s: float, cores: int = 4) -> str:
    steering = Steering(Limits(cores=cores))
    steering.hear_caller(evidence, evidence.wall_s)
    return str(steering.choose(horizon_s, START_S))


@pytest.mark.parametrize(
    ("evidence", "horizon_s", "chosen"),
    [
        (items(0.01), 10.0, "process(4)"),  # a Python loop, and much of it
        (items(0.01), 0.05, "serial"),  # over before processes were there
        # C that lets go of the lock: the simplest that is as fast
        (items(0.01, gil=FREE), 10.0, "thread(4)"),
        (items(0.01, cpu=0.0, gil=FREE), 10.0, "thread(64)"),  # waiting
        # Must not leave, and threads would take turns
        (items(0.01, stays="changes a global"), 10.0, "serial"),
    ],
)
def test_from_the_first_items(evidence: Evidence, horizon_s: float, chosen: str) -> None:
    assert after_caller(evidence, horizon_s) == chosen


def working(rate: float, *, evidence: Evidence | None = None) -> Steering:
    """Processes have the items, after the caller ran some of 10 ms."""
    steering = Steering(Limits(cores=4))
    steering.hear_caller(evidence or items(0.01), 0.01)
    steering.race.start(Candidate("process", 4))
    steering.hear_workers(evidence or items(0.01), rate)
    return steering


@pytest.mark.parametrize(
    ("rate", "chosen"), [(390.0, "process(4)"), (150.0, "process(4)"), (60.0, "serial")]
)
def test_what_works_stays_as_long_as_it_is_the_best(rate: float, chosen: str) -> None:
    steering = working(rate)
    seen = set()
    for _ in range(20):  # whatever else is tried is slower
        wanted = steering.choose(60.0, START_S)
        if wanted == steering.race.current:
            break
        seen.add(str(wanted))
        steering.race.start(wanted)
        steering.hear_workers(items(0.01), 100.0 if wanted.backend == "serial" else 40.0)
    assert str(steering.choose(60.0, START_S)) == chosen


def test_items_of_another_kind_open_the_race_again() -> None:
    steering = working(390.0)
    while (wanted := steering.choose(60.0, START_S)) != steering.race.current:
        steering.race.start(wanted)
        steering.hear_workers(items(0.01), 100.0)
    steering.hear_workers(items(0.1, cpu=0.0, gil=FREE), 40.0)  # they wait now, ten times as long
    assert steering.choose(60.0, START_S).backend == "thread"


def test_one_odd_window_opens_nothing_and_two_do() -> None:
    steering = working(390.0)
    before = steering.evidence
    steering.hear_workers(items(0.03), 130.0)
    assert steering.evidence is before
    steering.hear_workers(items(0.03), 130.0)
    assert steering.evidence is not before


def test_what_neither_works_nor_is_wanted_is_needed_no_more() -> None:
    steering = working(390.0)
    assert not steering.needs_no("process", steering.race.current)
    steering.race.settled = True
    steering.race.start(Candidate("thread", 4))
    assert steering.needs_no("process", Candidate("thread", 4))
    assert not steering.needs_no("process", Candidate("process", 4))


@pytest.mark.parametrize(
    ("now", "drift"),
    [(items(0.01), 1.0), (items(0.03), 3.0), (items(0.005), 2.0), (items(0.01, cpu=0.5), 2.0)],
)
def test_how_far_items_have_drifted(now: Evidence, drift: float) -> None:
    assert drift_of(now, items(0.01)) == pytest.approx(drift)


def test_a_plan_tells_the_choice_and_its_evidence() -> None:
    plan = working(390.0).plan()
    assert (plan.choice, plan.evidence) == ("process(4)", items(0.01))
