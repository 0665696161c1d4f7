# SPDX-License-Identifier: BSD-3-Clause
"""One worker as its parent sees it, and what it has to tell.

::

    running, frontier         what it does right now         from its scoreboard, where it has one
    reclaim, settled, resume  items that it has not started  go back to the queue, and to others
    unsent, salvage           results that it has not sent   are fetched, also after its death
    kill, stop, release       its end                        by force; when idle; of what it leaves
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Any

from teamster.spine.workers.batch import Batch
from teamster.spine.workers.scoreboard import LIMIT, NO_LIMIT, SETTLE_NS, Scoreboard


@dataclass(slots=True, eq=False)
class WorkerHandle:
    """A worker of a kind that cannot be looked into: what it was handed counts as started."""

    index: int
    outstanding: deque[Batch] = field(default_factory=deque)
    next_number: int = 1
    ready: bool = False
    retiring: bool = False
    absent: bool = False  # its thread is in a callback of the user's, for as long as that takes
    reclaimed_ns: int = 0  # when its unstarted items were asked back; 0 when not
    reclaimed_from: int = 0
    # Items from this number on are no longer its own; 0 when nothing was taken back
    taken_back: int = 0
    handed: int = 0
    items: int = 0
    busy_ns: int = 0
    last_heard_ns: int = 0
    # Ended on purpose: while this item ran, with this error for it
    killed_for: tuple[int, BaseException | None] | None = None

    @property
    def idle(self) -> bool:
        """Nothing handed and not finished."""
        return not self.outstanding

    def running(self) -> tuple[int, int, int] | None:
        """First item, width and start (ns; 0 while it loads the function) of the block that runs.

        None where that is not known.
        """
        return None

    def frontier(self) -> int:
        """The first item that it has not started, as far as can be seen."""
        return self.next_number

    def reclaim(self, number: int) -> None:
        """Ask that no item from `number` on is started."""

    def end_of(self, batch: Batch) -> int:
        """The offset in a batch from which on its items were taken back, and are others'."""
        return (
            min(batch.size, max(0, self.taken_back - batch.number))
            if self.taken_back
            else batch.size
        )

    def settled(self) -> bool:
        """Whether what was asked with `reclaim` is certain.

        Then no item beyond the `frontier` will be started.
        """
        return True

    def resume(self) -> None:
        """End that."""

    def initialising_ns(self) -> int:
        """Since when its initializer runs, where that can be ended; 0 when it does not."""
        return 0

    def unsent(self) -> bool:
        """Whether `salvage` would bring anything new."""
        return False

    def salvage(self) -> list[Event]:
        """Results that it has finished and not sent yet."""
        return []

    def return_memory(self) -> None:
        """Tell it of its own shared memory that came free, when nothing on its way would."""

    def kill(self) -> None:
        """End it whatever it does; `Died` follows. Only asked of kinds that can be killed."""
        raise AssertionError("a worker of this kind cannot be killed")

    def stop(self) -> None:
        """Let it end, now that it is idle."""

    def release(self) -> None:
        """Let go of what belonged to it.

        Called when its `Died` was handled, until which all of it can be asked.
        """


@dataclass(slots=True, eq=False)
class WatchedHandle(WorkerHandle):
    """A worker that marks on a scoreboard what it starts, and heeds a limit there.

    How that goes without a lock is told in scoreboard.py.
    """

    scoreboard: Scoreboard = field(default_factory=Scoreboard.private)

    def running(self) -> tuple[int, int, int] | None:
        """What the scoreboard says."""
        return self.scoreboard.running()

    def frontier(self) -> int:
        """What the scoreboard says."""
        return self.scoreboard.frontier()

    def reclaim(self, number: int) -> None:
        """Set the limit."""
        self.scoreboard.words[LIMIT] = number

    def settled(self) -> bool:
        """Certain after a fixed time: see scoreboard.py."""
        return perf_counter_ns() - self.reclaimed_ns >= SETTLE_NS

    def resume(self) -> None:
        """Lift the limit."""
        self.scoreboard.words[LIMIT] = NO_LIMIT


@dataclass(slots=True)
class BatchResults:
    """Results of consecutive items; or, when `error` is set, what one item raised."""

    worker: WorkerHandle
    number: int
    values: list[Any]
    error: BaseException | None = None


@dataclass(slots=True)
class BatchDone:
    """A batch is over: `ran` items of it were run in `run_ns`.

    Its thread was on a processor for `cpu_ns` of them, and for `delay_ns` ready to be, while others
    had it. It ended at `ended_ns` of the clock.
    """

    worker: WorkerHandle
    number: int
    ran: int
    run_ns: int
    cpu_ns: int = 0
    delay_ns: int = 0
    ended_ns: int = 0


@dataclass(slots=True)
class Ready:
    """A worker is initialised; or, with `error`, its initializer failed."""

    worker: WorkerHandle
    error: BaseException | None = None


@dataclass(slots=True)
class BatchUnreadable:
    """A worker could not unpickle a batch, or (`part` is "function") what would run it.

    None of it was run.
    """

    worker: WorkerHandle
    number: int
    error: BaseException
    part: str = "argument"


@dataclass(slots=True)
class Died:
    """A worker is gone.

    Attributes:
        running: the block that it ran: first item and width.
        describe: makes the error for an item, of its index and the number of its attempts.
        by_memory: whether it had too little memory.
        unsure: whether it cannot be known which of the items that it held have run, as on a
            machine that cannot be reached.
    """

    worker: WorkerHandle
    running: tuple[int, int] | None
    describe: Callable[[int, int], BaseException]
    by_memory: bool = False
    unsure: bool = False


Event = BatchResults | BatchDone | Ready | BatchUnreadable | Died
