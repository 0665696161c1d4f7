# SPDX-License-Identifier: BSD-3-Clause
"""Where the model computes: whatever answers more, measured with an example at the start.

::

    a request takes less than it takes to hand it on?  --yes--> the event loop itself
    threads: all replicas at once compute nearly as many times what one does?  --yes--> threads
        no: the lock, or the memory, is in their way --> processes, measured alike
            they compute much more? --yes--> processes
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from teamster.serve.cost import CostModel
from teamster.serve.warming import are_there, warm_up
from teamster.spine.plan.plan import Candidate

_SCALES = 0.8  # of what as many times one replica would compute: nothing can gain much
_CHEAP_S = 100e-6  # of a request: a thread is told, and tells, in as much
_MUCH_MORE = 1.15  # times what threads compute: processes need weights of their own

Make = Callable[[str], Awaitable[Sequence[Any]]]
"""Starts the replicas of a kind."""


@dataclass(frozen=True, slots=True)
class Way:
    """Replicas of one kind, that are ready.

    Attributes:
        kind: "thread", "process" or "serial" for the event loop itself.
        replicas: of it.
        cost: what batches take.
        most: rows that a batch may have.
    """

    kind: str
    replicas: Sequence[Any]
    cost: CostModel
    most: int

    def is_cheap(self) -> bool:
        """Whether to hand a request on takes longer than to compute it."""
        return self.cost.is_known and self.cost.predict(1) < _CHEAP_S

    def candidate(self) -> Candidate:
        """With the rows a second that it computes, where they were measured."""
        rate = self.cost.best_rate(self.most) if self.cost.is_known else None
        return Candidate(self.kind, len(self.replicas), measured=rate)

    def close(self) -> None:
        """It was not chosen."""
        for each in self.replicas:
            each.close()


async def choose(
    kind: str, make: Make, example: Any, most: int
) -> tuple[Way, tuple[Candidate, ...]]:
    """The replicas to serve with.

    Args:
        kind: "thread", "process", or "auto" for what is measured; without an example, threads.
        make: starts them.
        example: an input; None for none.
        most: rows of a batch.

    Returns:
        What was chosen, and all that was tried.

    Raises:
        UsageError: a replica cannot be made, or the model fails on the example.
    """
    first = await _ready("process" if kind == "process" else "thread", make, example, most)
    count = len(first.replicas)
    if kind == "auto" and first.is_cheap():
        first.close()
        way = await _ready("serial", make, example, most)
        return way, (way.candidate(), first.candidate())
    if kind != "auto" or count < 2 or first.cost.scaling(first.most, count) > _SCALES:
        return first, (first.candidate(),)
    try:
        second = await _ready("process", make, example, most)
    except Exception as error:
        failed = Candidate("process", count, note=f"failed: {error}")
        return first, (first.candidate(), failed)
    both = first.candidate(), second.candidate()
    if (both[1].measured or 0.0) > _MUCH_MORE * (both[0].measured or 0.0):
        first, second = second, first
    second.close()
    return first, both


async def _ready(kind: str, make: Make, example: Any, most: int) -> Way:
    replicas, cost = await make(kind), CostModel()
    try:
        await are_there(replicas)
        if example is not None:
            most = await warm_up(replicas, example, most, cost)
    except BaseException:
        for each in replicas:
            each.close()
        raise
    return Way(kind, replicas, cost, most)
