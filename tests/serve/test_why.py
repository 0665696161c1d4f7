# SPDX-License-Identifier: BSD-3-Clause
"""Sentences about slow requests, out of moments that are given."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from teamster.serve import Server
from teamster.serve.past import Answered, Computed, Past
from teamster.serve.why import PARTS, explain
from tests.serve.asking import client

MS = 1_000_000


def answered(came: float, *parts: float, status: int = 200, batch: int = 0) -> Answered:
    """`parts`: milliseconds to read, decode, wait, compute, and go back."""
    moments = [came]
    for each in parts:
        moments.append(moments[-1] + each)
    return Answered(*(round(each * MS) for each in moments), status, batch)


def computed(
    number: int, began: float, took: float, *, rows: int = 1, delay: float = 0.0, held: float = 0.0
) -> Computed:
    ns = [round(each * MS) for each in (began, began + took, held, delay)]
    return Computed(number, number % 2, rows, *ns, True)


def of(requests: list[Answered], batches: list[Computed]) -> Past:
    past = Past()
    past.requests.extend(requests)
    past.batches.extend(batches)
    return past


def quick(count: int = 197) -> list[Answered]:
    return [answered(10 * n, 0, 0, 0, 1, 0, batch=n + 1) for n in range(count)]


def quick_batches(count: int = 197) -> list[Computed]:
    return [computed(n + 1, 10 * n, 1) for n in range(count)]


def test_queued_behind_a_large_batch() -> None:
    late = [answered(3000, 0, 0, 80, 20, 0, batch=1001) for _ in range(3)]
    batches = [*quick_batches(), computed(999, 2990, 85, rows=32), computed(1001, 3080, 20)]
    (why,) = explain(of([*quick(), *late], batches))["why"]
    assert why.startswith(
        "p99 is 100 ms: 80% queued behind a batch of 32 on replica 1, 20% compute"
    )


@pytest.mark.parametrize(
    ("delay", "reason"), [(8.0, ": other threads or programs had the processor"), (0.0, "")]
)
def test_longer_than_its_median(delay: float, reason: str) -> None:
    late = [answered(3000 + n, 0, 0, 0, 11, 0, batch=500 + n) for n in range(3)]
    batches = [*quick_batches(), *(computed(500 + n, 3000 + n, 11, delay=delay) for n in range(3))]
    (why,) = explain(of([*quick(), *late], batches))["why"]
    assert why == f"p99 is 11 ms: 100% compute (11.0 times its median{reason})"


def test_held_back_and_the_way_back() -> None:
    late = [answered(3000, 0, 0, 4, 2, 4, batch=500)] * 3
    batches = [*quick_batches(), computed(500, 3004, 2, rows=8, held=4)]
    (why,) = explain(of([*quick(), *late], batches))["why"]
    assert "40% held back for a larger batch" in why
    assert "40% on the way back" in why
    assert "20% compute (in a batch of 8)" in why


def test_the_event_loop_was_busy() -> None:
    late = [answered(3000, 0, 0, 9, 1, 0, batch=500)] * 3
    (why,) = explain(of([*quick(), *late], [*quick_batches(), computed(500, 3009, 1)]))["why"]
    assert "90% queued until the server came to them" in why


def test_a_slow_client_and_a_large_body() -> None:
    late = [answered(3000, 60, 30, 0, 10, 0, batch=500)] * 3
    (why,) = explain(of([*quick(), *late], [*quick_batches(), computed(500, 3090, 10)]))["why"]
    assert "60% to read their bodies from the network, 30% to decode the inputs" in why


def test_promises_refusals_and_batches_that_were_computed_again() -> None:
    late = [answered(3000, 0, 0, 0, 100, 0, batch=500)] * 3
    refused = [answered(3000, 0, 0, 0, 0, 0, status=429)] * 7
    again = computed(500, 3000, 100)._replace(whole=False)
    found = explain(of([*quick(), *late, *refused], [*quick_batches(), again]), promised_s=0.05)
    assert found["refused"] == 7
    assert found["requests"] == 200
    assert found["why"][1].startswith("3 of the 3 slowest were in batches that were computed again")
    assert found["why"][2] == "50 ms were promised: 98.5% of the answers kept that"
    assert found["why"][3].startswith("7 requests were refused")


def test_nothing_and_little() -> None:
    assert explain(Past())["why"] == ["no request has been answered yet"]
    (only,) = explain(of([answered(0, 0, 0, 0, 5, 0, batch=1)], [computed(1, 0, 5)]))["why"]
    assert only == "the slowest request took 5 ms: 100% compute"
    refused = explain(of([answered(0, 0, 0, 0, 0, 0, status=429)], []))
    assert refused["why"] == ["all of the last 1 requests were refused: they would have been late"]


def test_a_request_whose_batch_is_forgotten() -> None:
    late = [answered(3000, 0, 0, 5, 5, 0, batch=9999)] * 3
    (why,) = explain(of([*quick(), *late], quick_batches()))["why"]
    assert "50% compute" in why


def test_the_parts_are_all_of_the_time() -> None:
    def wait(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    with Server(wait, workers=1).start() as running, client(running) as asked:
        for _ in range(3):
            asked.post("/predict", content=b"0.01").raise_for_status()
        asked.post("/predict", content=b"[")
        found: dict[str, Any] = asked.get("/debug/slow").json()["models"]["/predict"]
    assert found["requests"] == 4
    assert found["model"] == "wait"
    for row in found["slowest"]:
        assert sum(row[f"{part}_ms"] for part in PARTS) == pytest.approx(row["total_ms"], abs=0.01)
        assert row["compute_ms"] >= 10
        assert row["batch"] == 1


def test_process_replicas_tell_their_moments_too() -> None:
    with Server(abs, workers=1, kind="process").start() as running:
        answer = httpx.post(f"{running.url}/predict", content=b"-1", timeout=60)
        answer.raise_for_status()
        (row,) = httpx.get(f"{running.url}/debug/slow").json()["models"]["/predict"]["slowest"]
    assert 0 <= row["compute_ms"] <= row["total_ms"]
    assert row["replica"] == 0
