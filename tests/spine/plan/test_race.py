# SPDX-License-Identifier: BSD-3-Clause
"""The race, run against made-up machines: nothing starts, and no clock runs."""

import pytest

from teamster.machine.gil import GilShare
from teamster.spine.plan.choice import Limits, neighbours, predict
from teamster.spine.plan.plan import Candidate, Evidence
from teamster.spine.plan.race import Race

START_S = {"process": 0.1}


def begin(evidence: Evidence, limits: Limits) -> Race:
    race = Race(predict(evidence, limits))
    race.measure(1 / evidence.wall_s)
    return race


def run(
    race: Race, truth: dict[str, float], evidence: Evidence, limits: Limits, items: float = 1e6
) -> list[str]:
    """Let everybody who is chosen reach what is true; who was tried, in order."""
    tried = []
    for _ in range(20):
        rate = race.current.measured
        assert rate is not None
        wanted = race.choose(items / rate, START_S)
        if wanted == race.current:
            return tried
        tried.append(str(wanted))
        race.start(wanted)
        if wanted.measured is None:
            race.measure(truth[str(wanted)])
            race.propose(neighbours(race.current, evidence, limits))
    pytest.fail(f"it never settled: {tried}")


LOOP = Evidence(50, 1e-3, 1e-3, 1e-3, GilShare(1.0, 0.02, 300))
FREE = Evidence(50, 3e-3, 3e-3, 3e-3, GilShare(0.02, 0.01, 300))
SLEEP = Evidence(5, 0.1, 1e-4, 1e-4)


def test_a_python_loop_goes_to_processes_and_nothing_else_is_tried() -> None:
    race = begin(LOOP, Limits(4))
    assert run(race, {"process(4)": 3800.0}, LOOP, Limits(4)) == ["process(4)"]
    assert race.settled


def test_code_that_frees_the_lock_goes_to_threads_and_no_process_is_tried() -> None:
    race = begin(FREE, Limits(4))
    assert run(race, {"thread(4)": 1300.0}, FREE, Limits(4)) == ["thread(4)"]


def test_a_convoy_of_threads_is_left_for_processes() -> None:
    """Small torch operations: the lock is free two thirds of the time, and two threads reach a
    third of one.
    """
    convoy = Evidence(50, 1e-3, 1e-3, 1e-3, GilShare(0.33, 0.02, 300))
    race = begin(convoy, Limits(2))
    race.renew([Candidate("thread", 2, 2100.0, 2100.0)])
    assert run(race, {"thread(2)": 340.0, "process(2)": 1900.0}, convoy, Limits(2)) == [
        "thread(2)",
        "process(2)",
    ]


def test_threads_that_wait_climb_while_the_rate_climbs() -> None:
    some = Evidence(5, 0.01, 4e-4, 4e-4, GilShare(0.02, 0.01, 300))
    race = begin(some, Limits(2))
    truth = {"thread(48)": 4500.0, "thread(50)": 4500.0, "thread(64)": 4600.0, "process(8)": 790.0}
    assert run(race, truth, some, Limits(2))[0].startswith("thread")
    assert race.current.backend == "thread"


def test_a_saturated_server_brings_the_threads_down() -> None:
    race = begin(SLEEP, Limits(2))
    truth = {"thread(64)": 150.0, "thread(32)": 200.0, "thread(16)": 120.0, "process(8)": 70.0}
    assert run(race, truth, SLEEP, Limits(2)) == ["thread(64)", "thread(32)"]


def test_everything_disappoints_and_the_loop_goes_on() -> None:
    race = begin(LOOP, Limits(2))
    assert run(race, {"process(2)": 900.0}, LOOP, Limits(2)) == ["process(2)", "serial"]
    assert str(race.current) == "serial"


def test_little_work_is_not_worth_a_start() -> None:
    race = begin(LOOP, Limits(4))
    assert str(race.choose(0.1, START_S)) == "serial"
    assert str(race.choose(1.0, START_S)) == "process(4)"


def test_a_trial_that_only_a_bound_speaks_for_must_be_affordable() -> None:
    unknown = Evidence(1, 10.0, 10.0, 10.0, stays="it uses `lock`, a lock")
    race = begin(unknown, Limits(64))
    assert str(race.choose(640.0)) == "serial"  # 64 items that take turns would take all of it
    short = Evidence(1, 1e-4, 1e-4, 1e-4, stays="it uses `lock`, a lock")
    assert str(begin(short, Limits(4)).choose(10.0)) == "thread(4)"


def test_who_is_settled_must_be_beaten_clearly() -> None:
    race = Race(
        [Candidate("serial", 1, 100.0, 100.0, 100.0), Candidate("process", 2, 105.0, 105.0, 105.0)]
    )
    race.start(race.choose(10.0))
    assert race.settled
    before = race.current
    for rate in (100.0, 96.0, 104.0, 97.0, 101.0):
        race.measure(rate)
        assert race.choose(10.0).backend == before.backend, "it flaps"
    race.measure(80.0)
    assert race.choose(10.0).backend != before.backend


def test_new_items_open_it_again() -> None:
    race = begin(LOOP, Limits(2))
    assert run(race, {"process(2)": 1900.0}, LOOP, Limits(2)) == ["process(2)"]
    race.reopen(predict(SLEEP, Limits(2)), 20.0)  # now they wait
    assert run(race, {"thread(64)": 600.0}, SLEEP, Limits(2)) == ["thread(64)"]


def test_what_is_impossible_is_not_tried_again() -> None:
    race = begin(LOOP, Limits(4))
    race.drop("process", "stays here: the function does not pickle")
    assert str(race.choose(100.0)) == "serial"
    assert [each.note for each in race.candidates if each.backend == "process"] == [
        "stays here: the function does not pickle"
    ]


def test_where_the_loop_is_not_allowed_somebody_else_takes_over() -> None:
    limits = Limits(2, allow=("thread", "process"))
    race = begin(LOOP, limits)
    assert race.choose(1.0, START_S).backend != "serial"
