# SPDX-License-Identifier: BSD-3-Clause
"""The choice, as tables: nothing starts."""

import pytest

from teamster.errors import UsageError
from teamster.machine.gil import GilShare
from teamster.spine.plan.choice import (
    CANDIDATES,
    Limits,
    best,
    choose,
    conclude,
    neighbours,
    predict,
)
from teamster.spine.plan.plan import Candidate, Evidence

MS = 1e-3


@pytest.mark.parametrize(
    ("backend", "workers", "cores", "inside", "expected"),
    [
        ("auto", None, 8, False, ("auto", 8)),
        ("auto", 3, 8, False, ("auto", 3)),
        ("auto", None, 1, False, ("auto", 1)),
        ("auto", 1, 8, False, ("auto", 1)),
        ("auto", None, 8, True, ("serial", 1)),
        ("process", None, 8, True, ("process", 8)),
        ("thread", 32, 2, False, ("thread", 32)),
        ("serial", 5, 8, False, ("serial", 1)),
    ],
)
def test_table(
    backend: str, workers: int | None, cores: int, inside: bool, expected: tuple[str, int]
) -> None:
    plan = choose(backend, workers, cores=cores, inside_worker=inside)
    assert (plan.backend, plan.workers) == expected
    assert str(plan) == f"{plan.choice}: {plan.reason}"


def test_an_unknown_backend_is_told_the_known_ones() -> None:
    with pytest.raises(
        UsageError,
        match="unknown backend 'gpu'; known are 'auto', 'serial', 'thread', 'process', "
        "'interpreter'",
    ):
        choose("gpu", None, cores=2, inside_worker=False)


@pytest.mark.parametrize("workers", [0, -1, 1.5, True])
def test_workers_are_counted_from_one(workers: int) -> None:
    with pytest.raises(UsageError, match="workers must be at least 1"):
        choose("process", workers, cores=2, inside_worker=False)


@pytest.mark.parametrize("allow", [(), "process", ("serial", "gpu"), ["serial"]])
def test_what_may_be_allowed_is_a_tuple_of_known_backends(allow: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=r"allow .*; known are 'serial', 'thread', 'process'"):
        choose("auto", None, cores=2, allow=allow)


def test_a_single_allowed_backend_is_the_choice() -> None:
    assert choose("auto", None, cores=4, allow=("thread",)).choice == "thread(4)"
    assert choose("auto", None, cores=4, allow=("serial",)).choice == "serial"


def held(share: float) -> GilShare:
    return GilShare(share, 0.02, 300)


LOOP = Evidence(50, 1 * MS, 1 * MS, 1 * MS, held(1.0))
ZLIB = Evidence(50, 3 * MS, 3 * MS, 3 * MS, held(0.02))
SLEEP = Evidence(5, 100 * MS, 0.05 * MS, 0.05 * MS)
DOWNLOAD = Evidence(5, 50 * MS, 2 * MS, 2 * MS, held(0.04))
MIXED = Evidence(5, 20 * MS, 2 * MS, 2 * MS, held(0.1))
TINY = Evidence(10_000, 0.3e-6, 0.3e-6, 0.3e-6, held(1.0))
UNKNOWN = Evidence(2, 10 * MS, 10 * MS, 10 * MS)
BLAS = Evidence(9, 10 * MS, 10 * MS, 40 * MS, held(0.01))
LARGE = Evidence(20, 20 * MS, 20 * MS, 20 * MS, held(0.02), 40_000_000, 8, move_s=20 * MS)
STATE = Evidence(
    20, 5 * MS, 5 * MS, 5 * MS, held(1.0), stays="the call changes `counter`, which it carries"
)


@pytest.mark.parametrize(
    ("evidence", "cores", "best_promise", "others"),
    [
        (LOOP, 4, "process(4)", ["thread(4)", "serial"]),
        (ZLIB, 4, "thread(4)", ["process(4)", "serial"]),
        (SLEEP, 2, "thread(64)", ["process(8)", "serial"]),
        (DOWNLOAD, 2, "thread(64)", ["process(8)", "serial"]),
        # The lock, held for 2 ms of 20, is what runs out first
        (MIXED, 2, "thread(10)", ["process(8)", "serial"]),
        (TINY, 4, "serial", ["process(4)", "thread(4)"]),
        (UNKNOWN, 4, "process(4)", ["serial", "thread(4)"]),
        (BLAS, 4, "serial", ["thread(4)", "process(4)"]),  # it uses the processors already
        (LARGE, 4, "thread(4)", ["process(4)", "serial"]),
    ],
)
def test_predictions(evidence: Evidence, cores: int, best_promise: str, others: list[str]) -> None:
    ranked = sorted(predict(evidence, Limits(cores)), key=lambda each: -(each.predicted or 0))
    assert str(ranked[0]) == best_promise
    assert sorted(map(str, ranked[1:])) == sorted(others)


def test_what_is_not_known_shows_in_the_bound() -> None:
    thread = predict(UNKNOWN, Limits(4))[1]
    assert thread.predicted == pytest.approx(100, rel=0.01)  # as if it held the lock all the time
    assert thread.bound == pytest.approx(400, rel=0.01)  # as if it never did
    busy = predict(BLAS, Limits(4))[1]
    assert (busy.bound or 0) > 3 * (busy.predicted or 0)  # what its own threads use may be waste


def test_what_stays_is_named_in_the_note_and_in_the_sentence() -> None:
    candidates = predict(STATE, Limits(4))
    assert candidates[2].note == "stays here: the call changes `counter`, which it carries"
    plan = conclude(candidates[0], candidates, STATE)
    assert "stays here: the call changes `counter`, which it carries" in plan.reason
    assert "stays here" in str(plan)


def test_limits_bind_the_predictions() -> None:
    assert [str(each) for each in predict(SLEEP, Limits(2, workers=3))] == [
        "serial",
        "thread(3)",
        "process(3)",
    ]
    assert [each.backend for each in predict(LOOP, Limits(2, allow=("serial", "process")))] == [
        "serial",
        "process",
    ]
    assert predict(LOOP, Limits(2, allow=("thread", "process")))[0].note == "not allowed"
    free = predict(LOOP, Limits(4, parallel_threads=True))[1]
    assert free.predicted == pytest.approx(4_000, rel=0.02)  # a free-threaded interpreter


@pytest.mark.parametrize(
    ("tried", "measured", "evidence", "expected"),
    [
        (Candidate("thread", 16, 160.0), 158.0, SLEEP, "thread(32)"),  # kept its promise: more
        (Candidate("thread", 64, 640.0), 630.0, SLEEP, None),  # as many as there may be
        (Candidate("thread", 32, 320.0), 100.0, SLEEP, "thread(16)"),  # broke it: fewer
        (Candidate("thread", 4, 1000.0), 990.0, LOOP, None),  # nothing waits
        (Candidate("serial", 1, 10.0), 10.0, SLEEP, None),
    ],
)
def test_what_a_trial_suggests(
    tried: Candidate, measured: float, evidence: Evidence, expected: str | None
) -> None:
    tried = Candidate(tried.backend, tried.workers, tried.predicted, tried.predicted, measured)
    assert [str(each) for each in neighbours(tried, evidence, Limits(2))] == (
        [expected] if expected else []
    )
    assert neighbours(tried, evidence, Limits(2, workers=16)) == ()


def test_the_simplest_of_the_fastest_is_the_best() -> None:
    tried = [
        Candidate("serial", 1, measured=50.0),
        Candidate("process", 4, measured=100.0),
        Candidate("thread", 4, measured=98.0),
    ]
    assert str(best(tried)) == "thread(4)"
    assert str(best([*tried, Candidate("process", 8, measured=120.0)])) == "process(8)"


def test_the_sentence_says_what_kind_of_work_it_is() -> None:
    candidates = [Candidate("serial", 1, measured=10.0), Candidate("thread", 32, measured=320.0)]
    assert (
        conclude(candidates[1], candidates, SLEEP).reason
        == "an item waits 100% of its time; 32 times as fast as the loop"
    )
    assert conclude(candidates[0], candidates, LOOP).reason.startswith(
        "an item holds the GIL 100% of its time; nothing is faster"
    )
    assert (
        conclude(candidates[0], candidates[:1], ZLIB).reason
        == "an item leaves the GIL free 98% of its time; no other way would pay"
    )
    climbed = [
        *candidates,
        Candidate("thread", 16, measured=160.0),
        Candidate("thread", 64, measured=310.0),
    ]
    assert conclude(candidates[1], climbed, SLEEP).reason.endswith(
        "; throughput rose until 32 workers"
    )
    assert conclude(climbed[2], climbed, SLEEP).reason.endswith("; more than 16 were slower")
    assert set(CANDIDATES) == {"serial", "thread", "process"}
