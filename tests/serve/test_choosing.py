# SPDX-License-Identifier: BSD-3-Clause
"""Threads or processes, by replicas that take what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from teamster.errors import UsageError
from teamster.serve.bodies import encoder_for
from teamster.serve.choosing import choose
from teamster.serve.computing import RequestBatch

Takes = Callable[[int, int], float]
"""Seconds of a batch, by its rows and by the replicas that are busy."""


class Made:
    """A replica of a kind."""

    def __init__(self, kind: str, takes: Takes, answer: Callable[[int], Any]) -> None:
        self.kind, self.takes, self.answer = kind, takes, answer
        self.is_open = True

    def run(self, batch: RequestBatch) -> None:
        size = len(batch.requests)
        batch.seconds = self.takes(size, batch.busy)
        batch.outcomes = [encoder_for("")(self.answer(size)) for _ in batch.requests]
        assert batch.told is not None
        asyncio.get_running_loop().call_soon(batch.told, batch)

    def close(self) -> None:
        self.is_open = False


def chosen(
    kind: str,
    thread: Takes,
    process: Takes | None = None,
    answer: Callable[[int], Any] = lambda _: 1,
) -> tuple[Any, Any, list[Made]]:
    made: list[Made] = []

    async def make(kind: str) -> Any:
        takes = process if kind == "process" else thread
        if takes is None:
            raise UsageError("it does not pickle")
        replicas = [Made(kind, takes, answer) for _ in range(1 if kind == "serial" else 2)]
        made.extend(replicas)
        return replicas

    way, candidates = asyncio.run(choose(kind, make, 0, 8))
    return way, candidates, made


def apart(size: int, busy: int) -> float:
    """Replicas that do not know of each other."""
    return 0.001 * size


def in_turn(size: int, busy: int) -> float:
    """Replicas that wait for one lock."""
    return 0.001 * size * busy


def test_threads_that_scale_are_not_compared() -> None:
    way, candidates, made = chosen("auto", apart, apart)
    assert (way.kind, [str(each) for each in candidates]) == ("thread", ["thread(2)"])
    assert {each.kind for each in made} == {"thread"}
    assert candidates[0].measured == pytest.approx(2_000)


def test_what_takes_less_than_to_hand_it_on_is_computed_in_the_loop() -> None:
    way, candidates, made = chosen("auto", lambda size, busy: 0.00002 * size)
    assert [str(each) for each in candidates] == ["serial", "thread(2)"]
    assert (way.kind, len(way.replicas)) == ("serial", 1)
    assert {each.kind for each in made if each.is_open} == {"serial"}


def test_threads_that_hold_a_lock_lose_to_processes() -> None:
    way, candidates, made = chosen("auto", in_turn, apart)
    assert way.kind == "process"
    assert [each.measured for each in candidates] == [pytest.approx(1_000), pytest.approx(2_000)]
    assert {each.kind for each in made if each.is_open} == {"process"}


def test_processes_that_gain_little_are_not_worth_their_memory() -> None:
    way, candidates, made = chosen("auto", in_turn, in_turn)
    assert way.kind == "thread"
    assert len(candidates) == 2
    assert {each.kind for each in made if each.is_open} == {"thread"}


def test_processes_that_cannot_be_had_are_named() -> None:
    way, candidates, _ = chosen("auto", in_turn)
    assert way.kind == "thread"
    assert candidates[1].note == "failed: it does not pickle"


def test_what_was_asked_for_is_not_compared() -> None:
    assert len(chosen("thread", in_turn, apart)[1]) == 1
    assert chosen("process", apart, apart)[0].kind == "process"


def test_a_model_whose_answer_depends_on_its_batch_is_served_unbatched(
    caplog: pytest.LogCaptureFixture,
) -> None:
    way, _, _ = chosen("auto", apart, apart, answer=lambda size: [size, "x"])
    assert way.most == 1
    assert "served unbatched" in caplog.text
    assert chosen("auto", apart, apart, answer=lambda size: {"a": 1.0 + 1e-6 * size})[0].most == 8
