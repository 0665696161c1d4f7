# SPDX-License-Identifier: BSD-3-Clause
"""Law 1 while "auto" changes its mind all the time: every item once, every result in its place."""

import itertools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import teamster as ts
from teamster.spine.plan.plan import Candidate
from teamster.spine.plan.race import Race
from teamster.tasks.auto.throughput import Throughput

WAYS = [
    Candidate("serial", 1),
    Candidate("thread", 1),
    Candidate("thread", 3),
    Candidate("process", 1),
    Candidate("process", 2),
]


@pytest.fixture
def restless(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Whoever is asked who should work next says somebody at random; what was said, in order."""
    said: list[str] = []
    rng = random.Random(5)

    def choose(self: Race, horizon_s: float, start_s: dict[str, float] | None = None) -> Candidate:
        said.append(str(way := rng.choice(WAYS)))
        return way

    monkeypatch.setattr(Race, "choose", choose)
    monkeypatch.setattr("teamster.tasks.auto.measured._FEW_S", -1.0)
    monkeypatch.setattr("teamster.tasks.auto.measured._SEEN_S", 0.0)
    monkeypatch.setattr("teamster.tasks.auto.measured._LOOK_S", 0.0)

    def read(self: Throughput) -> float | None:
        self.item_s = 1.0
        return 100.0 if self._job.batches else None

    monkeypatch.setattr(Throughput, "read", read)
    monkeypatch.setattr(
        "teamster.tasks.auto.measured.MeasuredMapping._is_unclear", lambda self, wanted: False
    )
    yield said
    assert len({name.split("(")[0] for name in said}) == 3, (
        f"it did not go everywhere: {Counter(said)}"
    )


def touch(folder: Path, number: int, seconds: float) -> int:
    """Leave a mark for each time that an item runs."""
    time.sleep(seconds)
    with open(folder / f"{number}", "a") as file:
        file.write("x")
    return number * 3


def runs(folder: Path) -> Counter[int]:
    return Counter(path.stat().st_size for path in folder.iterdir())


@pytest.mark.parametrize("seconds", [0.0, 0.002, 0.03])
def test_map(restless: list[str], tmp_path: Path, seconds: float) -> None:
    count = 60 if seconds > 0.01 else 600
    with ts.Pool() as pool:
        assert pool.map(touch, [tmp_path] * count, range(count), [seconds] * count) == [
            3 * n for n in range(count)
        ]
        report = pool.report()
    assert runs(tmp_path) == {1: count}
    assert report.items == count


def test_streams_of_endless_inputs(restless: list[str], tmp_path: Path) -> None:
    with ts.Pool() as pool:
        inputs = (itertools.repeat(tmp_path), itertools.count(), itertools.repeat(0.001))
        results = pool.imap(touch, *inputs)
        assert [next(results) for _ in range(400)] == [3 * n for n in range(400)]
        results.close()
    assert set(runs(tmp_path)) == {1}


def test_unordered_with_errors(restless: list[str], tmp_path: Path) -> None:
    def some_fail(number: int) -> int:
        touch(tmp_path, number, 0.001)
        if number % 7 == 0:
            raise ValueError(number)
        return number

    with ts.Pool() as pool:
        results = list(pool.imap_unordered(some_fail, range(300), on_error="return"))
    assert runs(tmp_path) == {1: 300}
    assert sorted(result for result in results if isinstance(result, int)) == [
        n for n in range(300) if n % 7
    ]
    assert sorted(error.args[0] for error in results if isinstance(error, ValueError)) == list(
        range(0, 300, 7)
    )


def test_a_death_costs_its_item_only(restless: list[str], tmp_path: Path) -> None:
    def some_die(number: int) -> int:
        worker = ts.current_worker()
        if number % 50 == 49 and worker is not None and worker.kind == "process":
            os.kill(os.getpid(), signal.SIGKILL)
        return touch(tmp_path, number, 0.001)

    with ts.Pool() as pool:
        results = pool.map(some_die, range(400), on_error="return")
    dead = [n for n, result in enumerate(results) if isinstance(result, ts.WorkerDied)]
    assert all(n % 50 == 49 for n in dead)
    assert [result for n, result in enumerate(results) if n not in dead] == [
        3 * n for n in range(400) if n not in dead
    ]
    assert runs(tmp_path) == {1: 400 - len(dead)}
