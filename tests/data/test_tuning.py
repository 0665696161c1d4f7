# SPDX-License-Identifier: BSD-3-Clause
"""Which workers a loader takes by itself."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
import torch
from torch.utils import data

from teamster.data import DataLoader, tuning
from teamster.data.fetch import Fetch
from teamster.data.sampling import Seed
from teamster.spine.plan.plan import Candidate
from teamster.tasks.auto import caller_clock


class Waits(data.Dataset[Any]):
    def __len__(self) -> int:
        return 600

    def __getitem__(self, index: int) -> Any:
        time.sleep(0.004)
        return index


class Tiny(Waits):
    def __getitem__(self, index: int) -> Any:
        return torch.tensor(index)


class Draws(Waits):
    def __getitem__(self, index: int) -> Any:
        time.sleep(0.004)
        return random.random()


def test_samples_that_wait_go_to_threads() -> None:
    loader = DataLoader(Waits(), 8)
    assert [each for batch in loader for each in batch.tolist()] == list(range(600))
    assert loader.explain().backend == "thread", loader.explain()
    assert loader.report().batches == 75


def test_tiny_samples_stay_with_the_consumer() -> None:
    loader = DataLoader(Tiny(), 8)
    open_ended = ("the first batches are measured", "it is compared with those before")
    until = time.monotonic() + 60
    while loader.explain().reason in open_ended and time.monotonic() < until:
        assert [each for batch in loader for each in batch.tolist()] == list(range(600))
    assert loader.explain().backend == "serial", loader.explain()


def test_what_draws_random_numbers_is_not_read_by_threads() -> None:
    loader = DataLoader(Draws(), 8)
    for _ in loader:
        pass
    assert loader.explain().backend != "thread", loader.explain()
    assert "draw random numbers from `random`" in str(loader.explain())


class Held(Waits):
    """What does not pickle stays in this process."""

    def __init__(self) -> None:
        self.lock = __import__("threading").Lock()

    def __getitem__(self, index: int) -> Any:
        with self.lock:
            return sum(range(20_000))


def test_a_dataset_that_does_not_pickle_stays() -> None:
    loader = DataLoader(Held(), 8)
    assert sum(len(batch) for batch in loader) == 600
    assert loader.explain().backend != "process"
    assert "stays here: it uses `its Held object`, a lock" in str(loader.explain())


class Takes(Waits):
    """Samples that move a clock of the test's own."""

    def __init__(self, clock: list[float], seconds: float) -> None:
        self.read = lambda: clock.__setitem__(0, clock[0] + seconds)

    def __getitem__(self, index: int) -> Any:
        self.read()
        return index


@pytest.mark.parametrize(("cores", "best"), [(2, "process"), (8, "process"), (8, "hybrid")])
def test_the_fastest_for_the_consumer_stays(
    cores: int, best: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads promise most; processes keep the consumer's own step short."""
    clock = [0.0]
    monkeypatch.setattr(tuning, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(
        tuning,
        "predict",
        lambda evidence, limits: (
            Candidate("serial", 1, 10.0),
            Candidate("thread", 2, 30.0),
            Candidate("process", 2, 20.0),
        ),
    )
    monkeypatch.setattr(caller_clock, "perf_counter_ns", lambda: int(clock[0] * 1e9))

    tuner, fetch = tuning.Tuner(cores), Fetch(Takes(clock, 0.025), list, True)
    used: list[str] = []
    takes = {"serial": 0.1, "thread": 0.08, "process": 0.05}
    takes["hybrid"] = 0.04 if best == "hybrid" else 0.06
    for _ in range(200):
        if tuner.probing:
            tuner.measure(fetch, [0, 1, 2, 3], Seed(0))
        else:
            clock[0] += takes[tuner.plan.backend]
        if tuner.delivered(0, 0.002):
            used.append(tuner.plan.backend)
    # On many cores a few processes with a few threads each are tried, too
    tried = ["thread", "process"] if cores < 8 else ["thread", "process", "hybrid"]
    assert used == (tried if best == tried[-1] else [*tried, best])
    assert tuner.plan.backend == best
    assert tuner.plan.reason.startswith(
        f"a batch takes the consumer {takes[best] * 1e3:g} ms, its own step included; "
        "thread(2) 80 ms"
    )
    assert "serial" not in tuner.plan.reason  # the probe has told: it takes twice as long


class Counted(Waits):
    def __init__(self) -> None:
        self.reads: list[int] = []

    def __getitem__(self, index: int) -> Any:
        self.reads.append(index)
        time.sleep(0.004)
        return index


def test_no_sample_is_read_twice_while_it_is_found_out() -> None:
    dataset = Counted()
    assert sum(len(batch) for batch in DataLoader(dataset, 8)) == 600
    assert sorted(dataset.reads) == list(range(600))


def test_what_the_consumer_does_between_epochs_counts_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    monkeypatch.setattr(tuning, "perf_counter", lambda: clock[0])
    tuner = tuning.Tuner(2)
    fetch = Fetch(Takes(clock, 0.005), list, True)
    monkeypatch.setattr(caller_clock, "perf_counter_ns", lambda: int(clock[0] * 1e9))
    candidates = Candidate("serial", 1, 10.0), Candidate("thread", 2, 30.0)
    monkeypatch.setattr(tuning, "predict", lambda *_: candidates)
    for _ in range(200):  # epochs of two batches, with a validation of 100 s behind each
        tuner.begin_epoch()
        for _ in range(2):
            if tuner.probing:
                tuner.measure(fetch, [0, 1], Seed(0))
            else:
                clock[0] += 0.01
            tuner.delivered(0)
        clock[0] += 100.0
    assert "a batch takes the consumer 10 ms, its own step included" in tuner.plan.reason


def test_workers_read_while_the_consumer_is_in_its_own_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    monkeypatch.setattr(tuning, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(caller_clock, "perf_counter_ns", lambda: int(clock[0] * 1e9))
    same = Candidate("serial", 1, 250.0), Candidate("process", 2, 250.0)
    monkeypatch.setattr(tuning, "predict", lambda *_: same)
    for step_s, tried in ((0.008, True), (0.0, False), (1.0, False)):
        tuner, fetch = tuning.Tuner(2), Fetch(Takes(clock, 0.004), list, True)
        while tuner.probing:
            tuner.measure(fetch, [0, 1], Seed(0))
            clock[0] += step_s
            tuner.delivered(0)
        assert ("compared" in tuner.plan.reason) is tried


def decided(tuner: tuning.Tuner, clock: list[float], batch_s: Any, windows: int) -> str:
    """What a tuner has decided after many batches, each of which takes `batch_s` of its plan."""
    fetch = Fetch(Takes(clock, 0.01), list, True)
    for _ in range(windows * 40):
        waited_s = 0.0
        if tuner.probing:
            tuner.measure(fetch, [0, 1, 2, 3], Seed(0))
        else:
            seconds, waited_s = batch_s(tuner.plan)
            clock[0] += seconds
        tuner.delivered(0, waited_s)
    return f"{tuner.plan.backend}({tuner.plan.workers})"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(tuning, "perf_counter", lambda: now[0])
    monkeypatch.setattr(caller_clock, "perf_counter_ns", lambda: int(now[0] * 1e9))
    candidates = Candidate("serial", 1, 10.0), Candidate("thread", 8, 30.0)
    monkeypatch.setattr(tuning, "predict", lambda *_: candidates)
    return now


def test_more_workers_while_the_consumer_waits(clock: list[float]) -> None:
    def waits(plan: Any) -> tuple[float, float]:
        seconds = 0.04 if plan.backend == "serial" else max(0.010, 0.16 / plan.workers)
        return seconds, seconds - 0.0099

    assert decided(tuning.Tuner(2), clock, waits, 30) == "thread(16)"


def test_fewer_workers_where_it_does_not_wait(clock: list[float]) -> None:
    def never_waits(plan: Any) -> tuple[float, float]:
        return (0.04, 0.02) if plan.backend == "serial" else (0.02 + plan.workers * 1e-4, 0.0)

    assert decided(tuning.Tuner(2), clock, never_waits, 30) == "thread(1)"


def test_it_is_decided_anew_when_batches_change(clock: list[float]) -> None:
    factor = [1.0]

    def changes(plan: Any) -> tuple[float, float]:
        seconds = {"serial": 0.02 * factor[0], "thread": 0.03}[plan.backend]
        return seconds, 0.03 * seconds

    tuner = tuning.Tuner(2)
    assert decided(tuner, clock, changes, 20) == "serial(1)"
    factor[0] = 10.0
    assert decided(tuner, clock, changes, 30) == "thread(8)"


def test_samples_that_are_tiny_no_more_are_measured_anew(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caller_clock, "thread_time_ns", lambda: 0)
    takes = [1e-6]
    fetch = Fetch(Takes(clock, 0.0), list, True)
    fetch.dataset.read = lambda: clock.__setitem__(0, clock[0] + takes[0])
    tuner = tuning.Tuner(2)

    def run(batches: int) -> None:
        for _ in range(batches):
            if tuner.probing:
                tuner.measure(fetch, [0, 1, 2, 3], Seed(0))
            else:
                clock[0] += (2 if tuner.plan.backend == "thread" else 4) * takes[0]
            tuner.delivered(0)

    run(40)  # not the 50 ms that other samples are measured for
    assert not tuner.probing
    assert tuner.plan.reason.startswith("no workers promise more")
    run(200_000)
    assert not tuner.probing
    takes[0] = 0.01
    run(400)
    assert tuner.plan.backend == "thread"


def test_batches_that_take_long_have_short_windows(clock: list[float]) -> None:
    used: list[str] = []

    def long(plan: Any) -> tuple[float, float]:
        used.append(plan.backend)
        return (0.4, 0.4) if plan.backend == "serial" else (0.31, 0.01)

    assert decided(tuning.Tuner(2), clock, long, 1) == "thread(8)"
    # The first of each is of another's making; three are enough where each is of many samples
    assert used[:9] == ["thread"] * 4 + ["serial"] * 4 + ["thread"]


def test_who_promises_no_more_than_was_reached_is_not_tried(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    candidates = (
        Candidate("serial", 1, 10.0),
        Candidate("thread", 2, 20.0),
        Candidate("process", 2, 20.0),
    )
    monkeypatch.setattr(tuning, "predict", lambda *_: candidates)
    used: set[str] = set()

    def halves(plan: Any) -> tuple[float, float]:
        used.add(plan.backend)
        return (0.021, 0.0005) if plan.backend == "thread" else (0.04, 0.04)

    assert decided(tuning.Tuner(2), clock, halves, 10) == "thread(2)"
    assert used == {"thread"}
