# SPDX-License-Identifier: BSD-3-Clause
"""Native threads of the consumer, beside workers that compute."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
import torch

from teamster.data import DataLoader, calm
from teamster.data.calm import Calm, can_calm
from tests.conftest import WaitUntil

needs_gnu = pytest.mark.skipif(not can_calm(), reason="torch has no threads of GNU's OpenMP here")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(calm, "perf_counter", lambda: now[0])
    monkeypatch.setattr(calm, "cores", lambda: 4)
    monkeypatch.setattr(calm, "can_calm", lambda: True)
    monkeypatch.setattr(Calm, "_hold", lambda self, end: None)
    return now


def run(decides: Calm, clock: list[float], waits: float, busy: float) -> bool:
    """A second of batches."""
    for _ in range(20):
        clock[0] += 0.05
        decides.note(0.05 * waits, busy)
    return decides.is_on


def test_only_where_the_consumer_waits_for_workers_that_compute(clock: list[float]) -> None:
    decides = Calm(4)
    assert run(decides, clock, waits=0.9, busy=0.9)
    assert run(decides, clock, waits=0.2, busy=0.9)  # stays
    assert not run(decides, clock, waits=0.05, busy=0.9)
    assert not run(decides, clock, waits=0.2, busy=0.9)
    assert not run(decides, clock, waits=0.9, busy=0.02)  # they wait for the input
    assert run(decides, clock, waits=0.9, busy=1.0)
    assert not run(decides, clock, waits=0.9, busy=0.1)
    assert not run(Calm(2), clock, waits=0.9, busy=1.0)  # half of the cores are free


def test_what_the_consumer_does_elsewhere_counts_for_nothing(clock: list[float]) -> None:
    decides = Calm(4)
    decides.note(0.0, 1.0)
    clock[0] += 100.0  # a validation
    assert run(decides, clock, waits=0.9, busy=1.0)
    decides.close()
    assert not decides.is_on


def threads_of_the_process() -> int:
    return len(os.listdir("/proc/self/task"))


@needs_gnu
def test_a_team_is_there_as_long_as_batches_come(wait_until: WaitUntil) -> None:
    torch.ones(1 << 20).add_(1)  # the program's own team
    before = threads_of_the_process()
    decides = Calm(2)
    decides._begin()
    wait_until(lambda: threads_of_the_process() >= before + 2, message="no team was made")
    decides.close()
    wait_until(lambda: threads_of_the_process() <= before, message="the team is still there")
    decides._begin()  # and nobody comes for a batch any more
    wait_until(lambda: not decides.is_on, message="it is still on")
    wait_until(lambda: threads_of_the_process() <= before, message="the team is still there")


class Computes:
    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> int:
        return sum(range(400_000)) * 0 + index


def calm_threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name == "teamster-calm"]


@needs_gnu
def test_a_loader_has_it_while_it_is_read_and_leaves_nothing(
    wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calm, "cores", lambda: 2)
    seen: list[bool] = []
    loader = DataLoader(Computes(), 8, num_workers=2, persistent_workers=True)

    def epoch() -> Iterator[int]:
        for batch in loader:
            seen.append(bool(calm_threads()))
            yield from batch.tolist()

    assert list(epoch()) == list(range(400))
    assert any(seen)
    wait_until(lambda: not calm_threads(), message="it is on between epochs")


def test_without_gnus_runtime_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calm, "_runtime", lambda: None)
    assert not can_calm()
