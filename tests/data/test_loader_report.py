# SPDX-License-Identifier: BSD-3-Clause
"""What a loader says of itself."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from teamster.data import DataLoader, LoaderReport, loader_report
from teamster.data.loader_report import LoaderClock
from teamster.machine.gil import GilShare
from teamster.spine.plan.plan import Evidence, Plan


class Slow:
    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> int:
        time.sleep(0.002)
        return index


def evidence(waits: float, held: float) -> Evidence:
    cpu_s = 0.01 * (1 - waits)
    return Evidence(10, 0.01, cpu_s, cpu_s, GilShare(held, 0.01, 100), 5, 5)


@pytest.mark.parametrize(
    ("waited_s", "backend", "measured", "bound"),
    [
        (0.01, "process", None, "consumer"),
        (1.0, "process", None, "loader"),
        (1.0, "thread", evidence(0.9, 0.0), "input"),
        (1.0, "thread", evidence(0.0, 0.9), "GIL"),
        (1.0, "process", evidence(0.0, 0.9), "processor"),
        (1.0, "serial", evidence(0.0, 0.9), "loader"),
    ],
)
def test_it_says_what_bounds_it(
    waited_s: float, backend: Any, measured: Evidence | None, bound: str
) -> None:
    plan = Plan(backend, 2, "asked for", (), measured)
    report = LoaderReport(plan, 100, 2.0, waited_s, 0.1)
    assert report.bound == bound
    assert report.ceiling == pytest.approx(99 / (2.0 - waited_s))
    assert "bound     by " in str(report)


def test_copies_that_take_most_of_the_wait_are_what_bounds_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(loader_report, "perf_counter", lambda: now[0])
    clock = LoaderClock()
    clock.begin_epoch()
    for _ in range(10):
        clock.begin()
        now[0] += 0.03
        clock.moved(0.02)
        clock.end(4)
    report = clock.read(Plan("process", 2, "asked for"))
    assert (report.bound, report.moved_s) == ("transfer", pytest.approx(0.2))
    assert "bound     by the transfer of batches" in str(report)


def test_a_loader_counts_what_its_copies_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the processor, which is a device as well as any, where nothing else takes time."""
    loader = DataLoader(torch.zeros(8, 2), 4, workers="inline", device="cpu")
    monkeypatch.setattr(
        "teamster.data.transfer.Transfer.__call__", lambda _, batch: time.sleep(0.01) or batch
    )
    list(loader)
    assert loader.report().moved_s >= 0.02


def test_the_ceiling_is_what_the_consumers_own_step_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(loader_report, "perf_counter", lambda: now[0])
    clock = LoaderClock()
    clock.begin_epoch()
    for _ in range(11):
        clock.begin()
        now[0] += 0.03  # for the batch
        clock.end(4)
        now[0] += 0.01  # its own step
    report = clock.read(Plan("serial", 1, "asked for"))
    assert report.waiting == pytest.approx(0.33 / 0.43)
    assert report.ceiling == pytest.approx(100)
    assert (report.batches, report.samples, report.bound) == (11, 44, "loader")


def test_memory_of_processes_is_told() -> None:
    loader = DataLoader(Slow(), 4, num_workers=2, workers="process")
    batches = iter(loader)
    next(batches)
    report = loader.report()
    assert 1 << 20 < report.memory_bytes < 1 << 30
    assert "of workers" in str(report)
    assert len(list(batches)) == 5
