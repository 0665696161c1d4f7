# SPDX-License-Identifier: BSD-3-Clause
"""Rates of workers, read from made-up batches on a made-up clock."""

from typing import Any

import pytest

from teamster.machine.gil import GilShare
from teamster.spine.plan.plan import Evidence
from teamster.spine.workers.batch import FunctionSpec
from teamster.spine.workers.handle import BatchDone, WorkerHandle
from teamster.spine.workers.job import CallOptions, Job
from teamster.tasks.auto import throughput
from teamster.tasks.auto.throughput import Throughput

BEFORE = Evidence(10, 0.001, 0.001, 0.001, GilShare(0.5, 0.02, 300), stays="it stays")


class Clock:
    """Wall and processor time of this process."""

    def __init__(self) -> None:
        self.now = self.own = 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(throughput, "perf_counter", lambda: made.now)
    monkeypatch.setattr(throughput, "process_time_ns", lambda: int(made.own * 1e9))
    return made


class Workers:
    """`count` workers that run batches of items that take `item_s`.

    `cpu_s` on a processor, `delay_s` while others had it.
    """

    def __init__(
        self, clock: Clock, kind: str, count: int, cores: int = 2, *, long_items: bool = False
    ) -> None:
        nothing: Any = lambda *_: None  # noqa: E731
        self.job = Job(
            FunctionSpec(abs),
            CallOptions(0, None, None),
            on_values=nothing,
            on_error=nothing,
            on_failure=nothing,
        )
        self.clock, self.kind, self.count = clock, kind, count
        self.throughput = Throughput(
            self.job, lambda: self.job.ran, count, kind, cores, long_items=long_items, lazy=False
        )
        self.read: list[float] = []

    def work(
        self, seconds: float, items: int, item_s: float, cpu_s: float = 0.0, delay_s: float = 0.0
    ) -> None:
        """All of them, for so long."""
        end = self.clock.now + seconds
        while self.clock.now < end - 1e-9:
            self.clock.now += items * item_s
            for _ in range(self.count):
                times = (int(each * items * 1e9) for each in (item_s, cpu_s, delay_s))
                self.job.observe(BatchDone(WorkerHandle(0), 0, items, *times))
                self.clock.own += items * cpu_s * (self.kind == "thread")
                if (rate := self.throughput.read()) is not None:
                    self.read.append(rate)


def test_a_trial_of_short_items_begins_after_the_first_batches(clock: Clock) -> None:
    workers = Workers(clock, "thread", 2)
    workers.work(0.02, 1, 0.02, 0.02)  # the first pays for imports
    workers.work(0.2, 5, 0.001, 0.0005)
    assert workers.read[0] == pytest.approx(2_000, rel=0.15)
    assert workers.throughput.item_s == pytest.approx(0.001)


def test_long_items_count_from_the_first(clock: Clock) -> None:
    workers = Workers(clock, "process", 4, cores=4, long_items=True)
    workers.work(0.5, 1, 0.5, 0.5)
    assert workers.read == [pytest.approx(8.0)]


def test_windows_follow_a_trial(clock: Clock) -> None:
    workers = Workers(clock, "thread", 4, cores=4)
    workers.work(1.0, 5, 0.001, 0.0009)
    assert 3 <= len(workers.read) <= 6
    assert workers.read[-1] == pytest.approx(4_000, rel=0.1)


def test_what_other_programs_take_is_not_held_against_the_workers(clock: Clock) -> None:
    """Half of the time the workers were ready to run, and did not.

    Our own threads used half of the processors.
    """
    quiet = Workers(clock, "process", 2)
    quiet.work(0.6, 5, 0.001, 0.001)
    disturbed = Workers(clock, "process", 2)
    disturbed.work(0.6, 5, 0.002, 0.001, 0.001)
    assert disturbed.read[-1] == pytest.approx(quiet.read[-1], rel=0.1)
    assert disturbed.throughput.item_s == pytest.approx(0.001)


def test_what_workers_take_from_each_other_is(clock: Clock) -> None:
    crowd = Workers(clock, "process", 8)
    crowd.work(1.0, 5, 0.004, 0.001, 0.003)
    assert crowd.read[-1] == pytest.approx(2_000, rel=0.1)
    busy = Workers(clock, "thread", 2)  # the caller itself has what is missing
    for _ in range(100):
        busy.work(0.01, 5, 0.0012, 0.001, 0.0002)
        clock.own += 0.01
    assert busy.read[-1] < 1_900


def test_the_evidence_of_items_that_wait(clock: Clock) -> None:
    workers = Workers(clock, "thread", 16)
    workers.work(0.5, 1, 0.01, 0.0001)
    evidence = workers.throughput.evidence(BEFORE)
    assert (evidence.wall_s, evidence.cpu_s) == (pytest.approx(0.01), pytest.approx(0.0001))
    assert evidence.waiting == pytest.approx(0.99)
    assert evidence.stays == "it stays"


def test_threads_that_wait_for_the_lock_do_not_wait(clock: Clock) -> None:
    """64 threads in a Python loop: each has the lock for a 64th of the time."""
    workers = Workers(clock, "thread", 64)
    workers.work(2.0, 1, 0.064, 0.001)
    evidence = workers.throughput.evidence(BEFORE)
    assert evidence.wall_s == pytest.approx(0.001)
    assert evidence.waiting == 0


def test_a_crowd_of_items_that_wait_still_waits(clock: Clock) -> None:
    """On a busy machine 64 threads that sleep use most of a processor, and the sleeps are late."""
    waiting = Evidence(10, 0.01, 0.0003, 0.0003, None)
    workers = Workers(clock, "thread", 64)
    workers.work(1.0, 1, 0.017, 0.0002)
    assert workers.throughput.evidence(waiting).wall_s == pytest.approx(0.01)
    computing = Workers(clock, "thread", 64)
    computing.work(2.0, 1, 0.064, 0.001)
    assert computing.throughput.evidence(waiting).waiting == 0


def test_the_share_of_the_lock_goes_with_the_processor_time(clock: Clock) -> None:
    workers = Workers(clock, "process", 2)
    workers.work(0.5, 1, 0.01, 0.001)
    gil = workers.throughput.evidence(BEFORE).gil
    assert gil is not None
    assert gil.held == pytest.approx(0.05)
