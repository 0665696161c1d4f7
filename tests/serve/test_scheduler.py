# SPDX-License-Identifier: BSD-3-Clause
"""Which requests go into a batch, and when, with replicas that a test computes for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter_ns
from typing import Any

import pytest

from teamster.serve.choosing import Way
from teamster.serve.computing import RequestBatch
from teamster.serve.cost import CostModel
from teamster.serve.errors import DeadlineMissed, Overloaded
from teamster.serve.request import Reply, Request
from teamster.serve.scheduler import Scheduler


class Replica:
    """Keeps its batch until the test ends it."""

    def __init__(self) -> None:
        self.batch: RequestBatch | None = None

    def run(self, batch: RequestBatch) -> None:
        self.batch = batch


class House:
    """A scheduler with replicas, and what was answered."""

    def __init__(self, replicas: int = 1, most: int = 8, limit: int = 10_000) -> None:
        self.cost = CostModel()
        self.scheduler = Scheduler(most, limit, replicas)
        self.replicas = [Replica() for _ in range(replicas)]
        self.scheduler.use(Way("thread", self.replicas, self.cost, most))  # type: ignore[arg-type]
        self.answered: dict[Any, Any] = {}

    def ask(self, value: Any, seconds: float | None = None, key: Any = None) -> Request:
        request = Request(value, lambda output: Reply(200, b""), lambda _: None, key=key)
        request.settle = lambda outcome: self.answered.__setitem__(value, outcome)
        if seconds is not None:
            request.deadline_ns = perf_counter_ns() + int(seconds * 1e9)
        self.scheduler.submit(request)
        return request

    async def end(self, replica: Replica, seconds: float = 0.001) -> list[Any]:
        """Its batch is done, as soon as it has one; the values that were in it."""
        deadline = asyncio.get_running_loop().time() + 5.0
        while (batch := replica.batch) is None:
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.0005)
        replica.batch = None
        batch.outcomes = [Reply(200, b"") for _ in batch.requests]
        batch.seconds = seconds
        self.scheduler.done(replica, batch)
        return [request.value for request in batch.requests]


def in_loop(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(test())  # type: ignore[arg-type]

    run.__name__ = test.__name__  # type: ignore[attr-defined]
    return run


@in_loop
async def test_the_first_is_computed_at_once_and_the_others_together() -> None:
    house = House()
    for value in range(12):
        house.ask(value)
    (replica,) = house.replicas
    assert await house.end(replica) == [0]
    assert await house.end(replica) == list(range(1, 9))
    assert await house.end(replica) == [9, 10, 11]
    assert len(house.answered) == 12
    assert house.scheduler.in_flight == 0


@in_loop
async def test_the_earliest_deadline_comes_first_and_shapes_stay_apart() -> None:
    house = House(most=2)
    house.ask("running")
    for value, seconds, key in (
        ("late", 9.0, "a"),
        ("none", None, "a"),
        ("soon", 1.0, "b"),
        ("next", 2.0, "a"),
    ):
        house.ask(value, seconds, key)
    (replica,) = house.replicas
    batches = [await house.end(replica) for _ in range(4)]
    assert batches == [["running"], ["soon"], ["next", "late"], ["none"]]


@in_loop
async def test_those_that_were_in_flight_are_waited_for() -> None:
    house = House()
    house.cost.observe(1, 1, 0.010)
    house.cost.observe(8, 1, 0.011)
    (replica,) = house.replicas
    sizes: list[int] = []

    async def client(number: int) -> None:
        for turn in range(20):  # it asks again when it has its answer
            house.ask((number, turn))
            while (number, turn) not in house.answered:
                await asyncio.sleep(0)

    clients = asyncio.gather(*map(client, range(8)))
    while not clients.done():
        if replica.batch is None:
            await asyncio.sleep(0)
        else:
            sizes.append(len(await house.end(replica, 0.011)))
    assert sizes[5:-5].count(8) > 0.8 * len(sizes[5:-5])
    assert house.scheduler.holds > 5


@in_loop
async def test_one_that_is_alone_waits_for_a_moment_only() -> None:
    house = House()
    house.cost.observe(1, 1, 0.010)
    house.cost.observe(8, 1, 0.011)
    (replica,) = house.replicas
    for value in range(8):
        house.ask(value)
    while house.scheduler.in_flight:
        await house.end(replica)
    house.ask("alone")
    assert replica.batch is None
    assert await house.end(replica) == ["alone"]


@in_loop
async def test_what_cannot_be_in_time_is_refused_at_once() -> None:
    house = House(most=1)
    house.cost.observe(1, 1, 0.1)
    house.ask("running", 1.0)
    for number in range(5):
        house.ask(number, 1.0)
    with pytest.raises(Overloaded, match=r"its answer would take [67]") as caught:
        house.ask("too late", 0.5)
    assert 0.0 < caught.value.wait_s < 0.5
    house.ask("has time", 5.0)


@in_loop
async def test_a_queue_has_an_end() -> None:
    house = House(limit=3)
    for number in range(4):
        house.ask(number)
    with pytest.raises(Overloaded, match="3 requests wait already"):
        house.ask(4)


@in_loop
async def test_what_nobody_waits_for_is_not_computed() -> None:
    house = House()
    house.ask("running")
    gone, late = house.ask("gone"), house.ask("late", 60.0)
    house.ask("kept")
    gone.is_gone = True
    late.deadline_ns = perf_counter_ns()
    (replica,) = house.replicas
    await house.end(replica)
    assert await house.end(replica) == ["kept"]
    assert "gone" not in house.answered
    assert isinstance(house.answered["late"], DeadlineMissed)
    assert house.scheduler.in_flight == 0


@in_loop
async def test_a_second_replica_that_adds_nothing_is_left_alone() -> None:
    house = House(replicas=2, most=1)
    waiting = [house.ask(number) for number in range(2_000)]
    assert waiting
    while busy := [each for each in house.replicas if each.batch is not None]:
        for each in busy:
            await house.end(each, 0.001 * len(busy))  # together they are as slow as in turn
    plan = house.scheduler.plan()
    assert plan.workers == 1
    assert "1 of 2 replicas compute as much as all of them" in plan.reason


@in_loop
async def test_a_drain_ends_when_all_have_their_answers() -> None:
    house = House()
    house.ask(0)
    house.ask(1)
    drained = asyncio.ensure_future(house.scheduler.drain())
    await asyncio.sleep(0)
    assert not drained.done()
    await house.end(house.replicas[0])
    await house.end(house.replicas[0])
    await asyncio.wait_for(drained, 5.0)
