# SPDX-License-Identifier: BSD-3-Clause
"""The backend of one: batches run in the thread that waits for them. The reference that the other kinds are held to."""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

from teamster.spine.workers import worker_info as whoami
from teamster.spine.workers.backend import Batch, BatchDone, BatchResults, Event, FunctionSpec, Ready, WorkerHandle, WorkerInfo
from teamster.spine.workers.exceptions import wrap_control_flow
from teamster.spine.workers.runner import Runner
from teamster.spine.workers.scoreboard import LIMIT, NO_LIMIT, Scoreboard
from teamster.spine.workers.seeds import kept_random_state


class _ListSink:
    """Results of one batch, as events."""

    def __init__(self, worker: WorkerHandle, events: list[Event], first: int) -> None:
        self._worker = worker
        self._events = events
        self.next = first  # that was not told yet

    def keep(self, first: int, values: list[Any]) -> None:
        """Take results."""
        self.next = first + len(values)
        last = self._events[-1] if self._events else None
        if isinstance(last, BatchResults) and last.error is None and last.number + len(last.values) == first:
            last.values += values
        else:
            self._events.append(BatchResults(self._worker, first, values))

    def keep_failure(self, first: int, error: BaseException) -> None:
        """Take an exception; Ctrl-C is the caller's own and goes through."""
        if isinstance(error, KeyboardInterrupt):
            raise error
        self.next = first + 1
        self._events.append(BatchResults(self._worker, first, [None], wrap_control_flow(error)))

    def interrupt(self, end: int, error: BaseException) -> None:
        """Tell of the items up to `end`, which count as run, what has ended them."""
        for number in range(self.next, end):
            self._events.append(BatchResults(self._worker, number, [None], wrap_control_flow(error)))


class SerialBackend:
    """The caller itself, as a backend."""

    kind = "serial"
    pulls = True
    can_kill = False
    depth = 1
    deepest = 1

    def __init__(self, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
        self.report: Callable[[WorkerHandle, list[Event]], None] = lambda worker, events: None
        self.fail: Callable[[BaseException], None] = lambda error: None
        self._initializer = initializer
        self._initargs = initargs
        self._scoreboard = Scoreboard.private()
        self._waiting: deque[tuple[WorkerHandle, Batch]] = deque()
        self._events: list[Event] = []
        self._runner: tuple[int, Runner | None] = (-1, None)
        self._busy_in = 0  # the thread that runs a batch

    def prepare(self, spec: FunctionSpec, context: contextvars.Context) -> None:
        """Nothing: tasks run in the caller's own context."""

    def start(self, index: int) -> WorkerHandle:
        """Run the initializer here and now."""
        worker = WorkerHandle(index)
        error: BaseException | None = None
        try:
            if self._initializer is not None:
                self._initializer(*self._initargs)
        except Exception as raised:
            error = raised
        self._events.append(Ready(worker, error))
        return worker

    def resize(self, count: int) -> None:
        """It is always one."""

    def hand(self, worker: WorkerHandle, batch: Batch) -> None:
        """Keep the batch for the next `wait`."""
        self._waiting.append((worker, batch))

    def flush(self) -> None:
        """Nothing is held back."""

    def wait(self, seconds: float | None, *, eager: bool = False) -> list[Event]:
        """Run the next batch."""
        events, self._events = self._events, []
        if not self._waiting or any(isinstance(event, Ready) and event.error for event in events):
            return events
        worker, batch = self._waiting.popleft()
        spec: FunctionSpec = batch.job.spec
        before = whoami.set_thread_worker(WorkerInfo(0, "serial", 1))
        began = perf_counter_ns()
        self._busy_in = threading.get_ident()
        sink = _ListSink(worker, events, batch.number)
        try:
            arguments = batch.items, batch.number, max(batch.first, 0), sink
            if spec.seed is not None:
                with kept_random_state():
                    ran = self._runner_for(spec).run(*arguments)
            else:
                ran = self._runner_for(spec).run(*arguments)
        except BaseException as error:  # Ctrl-C; all is told by the next `wait`, and the item that it struck counts as run
            self._events = events
            ran = max(0, self._scoreboard.frontier() - batch.number)
            sink.interrupt(batch.number + ran, error)
            raise
        finally:
            self._busy_in = 0
            whoami.set_thread_worker(before)
            ended = perf_counter_ns()
            events.append(BatchDone(worker, batch.number, ran, ended - began, ended_ns=ended))
        return events

    def _runner_for(self, spec: FunctionSpec) -> Runner:
        identity, runner = self._runner
        if runner is None or identity != spec.identity:
            runner = Runner(spec, spec.function, self._scoreboard.words)
            self._runner = spec.identity, runner
        return runner

    def wake(self) -> None:
        """It never sleeps."""

    def is_inside(self) -> bool:
        """Whether a batch runs in this very thread."""
        return self._busy_in == threading.get_ident()

    def forget(self, spec: FunctionSpec) -> None:
        """Let go of the function."""
        if self._runner[0] == spec.identity:
            self._runner = (-1, None)

    def running(self, worker: WorkerHandle) -> tuple[int, int, int] | None:
        """What the scoreboard says."""
        return self._scoreboard.running()

    def frontier(self, worker: WorkerHandle) -> int:
        """What the scoreboard says."""
        return self._scoreboard.frontier()

    def reclaim(self, worker: WorkerHandle, number: int) -> None:
        """Set the limit on the scoreboard."""
        self._scoreboard.words[LIMIT] = number

    def resume(self, worker: WorkerHandle) -> None:
        """Lift the limit."""
        self._scoreboard.words[LIMIT] = NO_LIMIT

    def has_unsent(self, worker: WorkerHandle) -> bool:
        """Nothing waits anywhere that `salvage` could reach."""
        return False

    def salvage(self, worker: WorkerHandle) -> list[Event]:
        """Results are never held back."""
        return []

    def kill(self, worker: WorkerHandle) -> None:
        """The caller cannot be killed."""
        raise AssertionError("the caller cannot be killed")

    def stop(self, worker: WorkerHandle) -> None:
        """Nothing to end."""

    def release(self, worker: WorkerHandle) -> None:
        """It has nothing of its own."""

    def send_segments_home(self) -> None:
        """Nothing is shared by copy here."""

    def bytes_moved(self) -> tuple[int, int]:
        """Nothing moves."""
        return 0, 0

    def close(self, seconds: float) -> None:
        """Forget what waits."""
        self._waiting.clear()
        self._events.clear()
