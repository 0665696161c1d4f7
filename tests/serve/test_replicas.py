# SPDX-License-Identifier: BSD-3-Clause
"""When the event loop stops computing by itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from teamster.serve import replicas
from teamster.serve.computing import RequestBatch
from teamster.serve.model import Model
from teamster.serve.replicas import InLoop


class Delay:
    """A kernel that says that a thread had no processor in all of the time that batches took."""

    total_ns = 0

    def read_ns(self) -> int:
        return Delay.total_ns

    def close(self) -> None:
        pass


def left_after(
    seconds: list[float], monkeypatch: pytest.MonkeyPatch, *, delayed: bool = False
) -> int | None:
    """Batches that take so long each: after how many the loop is left, None for never."""
    left: list[int] = []
    takes = iter(seconds)

    def compute(model: Model, replica: Any, batch: RequestBatch, *, idempotent: bool) -> None:
        batch.seconds = next(takes)
        Delay.total_ns += int(batch.seconds * 1e9) if delayed else 0

    async def run() -> None:
        loop = asyncio.get_running_loop()
        done: list[RequestBatch] = []
        here = InLoop(Model(abs), True, loop, lambda *_: None, lambda: left.append(len(done)))
        for _ in seconds:
            done.append(RequestBatch([], 0, 1))
            here.run(done[-1])
        here.close()

    monkeypatch.setattr(replicas, "compute", compute)
    monkeypatch.setattr(replicas, "RunDelay", Delay)
    asyncio.run(run())
    assert len(left) <= 1  # it is told once
    return left[0] if left else None


QUICK, LONG = 0.00001, 0.02


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([QUICK] * 500, None),
        ([LONG, *[QUICK] * 200] * 5, None),
        ([LONG] * 5, 2),
        ([QUICK, LONG] * 50, 4),  # every second input is a long one
        ([QUICK, 0.2, QUICK], 2),
    ],
)
def test_when_the_loop_is_left(
    seconds: list[float], expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert left_after(seconds, monkeypatch) == expected


def test_the_loop_is_kept_where_it_had_no_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    assert left_after([LONG] * 50, monkeypatch, delayed=True) is None
