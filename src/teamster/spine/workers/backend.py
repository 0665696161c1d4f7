# SPDX-License-Identifier: BSD-3-Clause
"""What every kind of worker promises, so that the team above does not care which it leads.

::

    Team --- start, send(worker, batch) ---> Backend ---> a process, a thread, the caller
         <-- BatchResults, BatchDone, Died --- wait, or `report` from a worker's own thread

A backend keeps: batches of one worker run in the order sent; every item of a batch is reported once
(`BatchResults`) or was not run (`BatchDone` says how many were); an item that was reported is never
run again; after `Died` nothing more comes from that worker. A kind is a folder or file with a
`Backend` and a `WorkerHandle` (handle.py), and a row in teamster/kinds.py; it writes `start`,
`send`, `wait`, `close`, `prepare` where the function has to travel, and `wake` where `wait` sleeps.
The suite in tests/contract holds every kind to it.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Any, Protocol

from teamster.spine.workers.batch import Batch, FunctionSpec
from teamster.spine.workers.handle import Event, WorkerHandle


class Staffing(Protocol):
    """What of a plan decides about workers."""

    @property
    def backend(self) -> str:
        """The kind of worker."""

    @property
    def workers(self) -> int:
        """How many."""


class Staff:
    """What the workers of one team have in common, as their pool was asked for.

    Attributes:
        count: how many there are to be.
        initializer: called in each of them before its first task, with `initargs`.
        native_threads: how many threads of OpenMP and its like each may have.
        start_method: how processes come to life.
        preload: modules that the fork server has imported before it forks them.
    """

    __slots__ = ("count", "initargs", "initializer", "native_threads", "preload", "start_method")

    def __init__(
        self,
        count: int,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        native_threads: int = 1,
        start_method: str = "forkserver",
        preload: tuple[str, ...] = (),
    ) -> None:
        self.count = count
        self.initializer = initializer
        self.initargs = tuple(initargs)
        self.native_threads = native_threads
        self.start_method = start_method
        self.preload = preload


class Backend:
    """A kind of worker: how they start, get work, report and end.

    Attributes:
        kind: its name in kinds.py.
        pulls: whether a thread must call `wait` for events to come; else workers call `report` from
            their own threads.
        can_kill: whether `WorkerHandle.kill` ends one whatever it does.
        depth: batches that a worker may hold: 2 where a hand-over takes time that the first can
            cover.
        deepest: the same for batches so short that several are handed over in one go.
        long_ns: batches that take longer are handed one at a time: the hand-over is nothing beside
            them.
        stuck_ns: an item that runs this long, and several times longer than usual, keeps its batch
            from others.
        silent_ns: results of a worker that was silent so long are fetched, where a caller waits for
            single ones.
        report: the team's, for workers that report by themselves: takes what `salvage` brings, then
            the events.
        fail: the team's, for a worker's thread that cannot go on: ends every call with this error.
    """

    kind = ""
    pulls = True
    can_kill = False
    depth = deepest = 1
    long_ns = 20_000_000  # 100 times a hand-over to a process
    stuck_ns = 3_000_000  # a few times what the system lets others run in between
    silent_ns = 20_000_000  # sooner than a person notices

    def __init__(self) -> None:
        self.report: Callable[[WorkerHandle, list[Event]], None] = lambda worker, events: None
        self.fail: Callable[[BaseException], None] = lambda error: None

    def prepare(self, spec: FunctionSpec, context: contextvars.Context) -> None:
        """Make a job's function and the caller's context ready to be sent.

        It is called once, before the job's first batch.

        Raises:
            Exception: the function does not pickle.
        """

    def start(self, index: int, count: int) -> WorkerHandle:
        """Start one worker, of `count`; it can be sent work at once."""
        raise NotImplementedError

    def send(self, worker: WorkerHandle, batch: Batch) -> None:
        """Give a batch to a worker.

        Raises:
            Exception: the items do not pickle; nothing was sent.
        """
        raise NotImplementedError

    def flush(self) -> None:
        """Send whatever `send` has held back."""

    def wait(self, seconds: float | None, *, eager: bool = False) -> list[Event]:
        """Wait for events, at most `seconds` (None: for ever, until `wake`).

        When `eager`, it does not sleep at first.
        """
        raise NotImplementedError

    def wake(self) -> None:
        """Make a `wait` in another thread return."""

    def is_inside(self) -> bool:
        """Whether the calling thread is a worker at work, which would wait for itself."""
        return False

    def forget(self, spec: FunctionSpec) -> None:
        """No batch of this job will come any more."""

    def bytes_moved(self) -> tuple[int, int]:
        """Bytes that went through pickles and through shared memory, both directions, so far."""
        return 0, 0

    def close(self, seconds: float) -> None:
        """End every worker: idle ones by themselves within `seconds`, then the rest by force."""
        raise NotImplementedError
