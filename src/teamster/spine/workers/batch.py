# SPDX-License-Identifier: BSD-3-Clause
"""What is handed to a worker: consecutive items of one job, and what it must know of the job first.

::

    index    of an item in the job's input                   batch.first + offset
    offset   of an item in its batch                         0, 1, ...
    number   of an item at its worker, counted from 1        batch.number + offset
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

CallStyle = Literal["call", "star", "apply"]
"""How an item becomes arguments: ``f(item)``, ``f(*item)``, or ``f(*item[0], **item[1])``."""


@dataclass(slots=True, eq=False)
class FunctionSpec:
    """What a worker must know of a job, sent once: the function and how to call it."""

    function: Callable[..., Any]
    style: CallStyle = "call"
    seed: int | None = None
    # Never in blocks: the team needs to know the item that runs, whatever it costs
    one_by_one: bool = False
    # A caller waits for single results; else they may be sent many at a time
    low_latency: bool = False
    context: Any = None  # of the caller, in the form that its kind of backend can carry
    # What the caller has set in the interpreter and in libraries, as far as its kind of backend
    # carries it
    state: Any = None
    identity: int = -1
    parcel: Any = None  # process backends keep the pickled function here


class Batch:
    """Consecutive items of one job on their way through one worker."""

    __slots__ = (
        "attempts",
        "done",
        "exclusive",
        "first",
        "items",
        "job",
        "number",
        "one_by_one",
        "size",
    )

    def __init__(self, job: Any, first: int, items: Sequence[Any]) -> None:
        self.job = job
        self.first = first  # index in the job's input
        self.items = items
        self.size = len(items)
        self.attempts = 0  # deaths that its first item has to its name
        self.one_by_one = False  # run one by one
        self.exclusive = False  # run while nothing else runs
        self.done = 0  # items reported so far, from the front
        self.number = 0  # sequence number of its first item at its worker

    def piece(self, start: int, end: int, *, one_by_one: bool = False) -> Batch:
        """A new batch of some of these items."""
        first = self.first + start if self.first >= 0 else self.first
        batch = self.of(first, start, end)
        batch.attempts = self.attempts if start == 0 else 0
        batch.one_by_one = one_by_one or self.one_by_one
        return batch

    def of(self, first: int, start: int, end: int) -> Batch:
        """The items themselves of such a piece."""
        return Batch(self.job, first, self.items[start:end])

    def take_values(self, offset: int, values: list[Any]) -> None:
        """Results of consecutive items, for the caller that has asked; the team's lock is held."""
        self.job.on_values(self.first + offset, values)

    def take_error(self, offset: int, error: BaseException) -> None:
        """What one item came to instead; the team's lock is held."""
        self.job.on_error(max(self.first + offset, 0), error)

    def abandon(self, error: BaseException) -> None:
        """Nothing more of it will come, since the team gives up; the team's lock is held."""
