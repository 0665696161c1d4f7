# SPDX-License-Identifier: BSD-3-Clause
"""What every kind of worker promises, so that the team above does not care which it leads.

::

    Team --- hand(worker, batch) ---> Backend ---> a process, a thread, the caller
         <-- BatchResults, BatchDone, Died --- Backend

A backend keeps: batches of one worker run in the order handed; every item of a batch is reported once (`BatchResults`) or was
not run (`BatchDone` says how many were); an item that was reported is never run again; after `Died` nothing more comes from
that worker.
"""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

CallStyle = Literal["call", "star", "apply"]
"""How an item becomes arguments: ``f(item)``, ``f(*item)``, or ``f(*item[0], **item[1])``."""


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """Who runs this code.

    Attributes:
        index: which worker, counted from 0.
        kind: "serial", "thread", "interpreter" or "process".
        count: how many workers the pool has.

    Example:
        >>> import teamster as ts
        >>> ts.map(lambda _: ts.current_worker().kind, [1], backend="thread")
        ['thread']
    """

    index: int
    kind: str
    count: int


@dataclass(slots=True, eq=False)
class FunctionSpec:
    """What a worker must know of a job, sent once: the function and how to call it."""

    function: Callable[..., Any]
    style: CallStyle = "call"
    seed: int | None = None
    careful: bool = False  # never in blocks: somebody needs to know the item that runs, whatever it costs
    hurry: bool = False  # somebody waits for single results; else they may be sent many at a time
    context: Any = None  # of the caller, in the form that its kind of backend can carry
    state: Any = None  # what the caller has set in the interpreter and in libraries, as far as its kind of backend carries it
    identity: int = -1
    parcel: Any = None  # process backends keep the pickled function here


class Batch:
    """Consecutive items of one job on their way through one worker."""

    __slots__ = ("alone", "attempts", "careful", "done", "first", "items", "job", "number", "parcel", "size")

    def __init__(self, job: Any, first: int, items: Sequence[Any]) -> None:
        self.job = job
        self.first = first  # index in the job's input
        self.items = items
        self.size = len(items)
        self.attempts = 0  # deaths that its first item has to its name
        self.careful = False  # run one by one
        self.alone = False  # run while nothing else runs
        self.done = 0  # items reported so far, from the front
        self.number = 0  # sequence number of its first item at its worker
        self.parcel: Any = None

    def piece(self, start: int, end: int, *, careful: bool = False) -> Batch:
        """A new batch of some of these items."""
        first = self.first + start if self.first >= 0 else self.first
        batch = self.of(first, start, end)
        batch.attempts = self.attempts if start == 0 else 0
        batch.careful = careful or self.careful
        return batch

    def of(self, first: int, start: int, end: int) -> Batch:
        """The items themselves of such a piece."""
        return Batch(self.job, first, self.items[start:end])

    def take_values(self, offset: int, values: list[Any]) -> None:
        """Results of consecutive items, for whoever has asked; the team's lock is held."""
        self.job.on_values(self.first + offset, values)

    def take_error(self, offset: int, error: BaseException) -> None:
        """What one item came to instead; the team's lock is held."""
        self.job.on_error(max(self.first + offset, 0), error)

    def abandon(self, error: BaseException) -> None:
        """Nothing more of it will come, since the team gives up; the team's lock is held."""


@dataclass(slots=True, eq=False)
class WorkerHandle:
    """One worker as its parent sees it."""

    index: int
    outstanding: deque[Batch] = field(default_factory=deque)
    next_number: int = 1
    ready: bool = False
    retiring: bool = False
    absent: bool = False  # its thread is in a callback of the user's, for as long as that takes
    reclaimed_ns: int = 0  # when its unstarted items were asked back; 0 when not
    reclaimed_from: int = 0
    taken_back: int = 0  # items from this number on are no longer its own; 0 when nothing was taken back
    handed: int = 0
    items: int = 0
    busy_ns: int = 0
    last_heard_ns: int = 0
    killed_for: tuple[int, BaseException | None] | None = None  # killed on purpose: while this item ran, with this error for it

    @property
    def idle(self) -> bool:
        """Nothing handed and not finished."""
        return not self.outstanding

    def initialising_ns(self) -> int:
        """Since when its initializer runs, where that can be ended; 0 when it does not."""
        return 0


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

    Its thread was on a processor for `cpu_ns` of them, and for `delay_ns` ready to be, while others had it. It ended at `ended_ns`
    of the clock.
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
    """A worker could not unpickle a batch, or (`part` is "function") what would run it; none of it was run."""

    worker: WorkerHandle
    number: int
    error: BaseException
    part: str = "argument"


@dataclass(slots=True)
class Died:
    """A worker is gone; `running` is the block that it ran: first item and width."""

    worker: WorkerHandle
    running: tuple[int, int] | None
    describe: Callable[[int, int], BaseException]  # of an item's index and the number of its attempts
    by_memory: bool = False


Event = BatchResults | BatchDone | Ready | BatchUnreadable | Died


class Backend(Protocol):
    """A kind of worker: how workers start, get work, report and end."""

    kind: str
    pulls: bool
    """Whether someone must call `wait` for events to come; else workers call `report` from their own threads."""
    can_kill: bool
    depth: int
    """Batches that a worker may hold: 2 where a hand-over takes time that the first can cover."""
    deepest: int
    """The same for batches so short that several are handed over in one go."""
    report: Callable[[WorkerHandle, list[Event]], None]
    """The team's, for workers that report by themselves: takes what `salvage` brings, then the events."""
    fail: Callable[[BaseException], None]
    """The team's, for a worker's thread that cannot go on: ends every call with this error."""

    def prepare(self, spec: FunctionSpec, context: contextvars.Context) -> None:
        """Make a job's function and the caller's context ready to be handed; once, before its first batch.

        Raises:
            Exception: the function does not pickle.
        """

    def start(self, index: int) -> WorkerHandle:
        """Start one worker; it can be handed work at once."""

    def resize(self, count: int) -> None:
        """Members that start from now on are among so many."""

    def hand(self, worker: WorkerHandle, batch: Batch) -> None:
        """Give a batch to a worker.

        Raises:
            Exception: the items do not pickle; nothing was handed.
        """

    def flush(self) -> None:
        """Hand over whatever `hand` has held back."""

    def wait(self, seconds: float | None, *, eager: bool = False) -> list[Event]:
        """Wait for events, at most `seconds` (None: for ever, until `wake`); when `eager`, at first without sleeping."""

    def wake(self) -> None:
        """Make a `wait` in another thread return."""

    def running(self, worker: WorkerHandle) -> tuple[int, int, int] | None:
        """First item, width and start (ns; 0 while it loads the function) of the block that a worker runs."""

    def frontier(self, worker: WorkerHandle) -> int:
        """The first item that a worker has not started, as far as one can see."""

    def reclaim(self, worker: WorkerHandle, number: int) -> None:
        """Ask that no item from `number` on is started; final after `scoreboard.SETTLE_NS`."""

    def resume(self, worker: WorkerHandle) -> None:
        """End a recall."""

    def has_unsent(self, worker: WorkerHandle) -> bool:
        """Whether `salvage` would bring anything new."""

    def salvage(self, worker: WorkerHandle) -> list[Event]:
        """Results that a busy worker has finished and not sent yet."""

    def kill(self, worker: WorkerHandle) -> None:
        """End a worker whatever it does; `Died` follows."""

    def stop(self, worker: WorkerHandle) -> None:
        """Let an idle worker end."""

    def release(self, worker: WorkerHandle) -> None:
        """Let go of what belonged to a worker; called when its `Died` was handled, until which all of it can be asked."""

    def is_inside(self) -> bool:
        """Whether the calling thread is a worker at work, which would wait for itself."""

    def forget(self, spec: FunctionSpec) -> None:
        """No batch of this job will come any more."""

    def send_segments_home(self) -> None:
        """Tell workers of shared memory that came free."""

    def bytes_moved(self) -> tuple[int, int]:
        """Bytes that went through pickles and through shared memory, both directions, so far."""

    def close(self, seconds: float) -> None:
        """End every worker: idle ones by themselves within `seconds`, then the rest by force."""
