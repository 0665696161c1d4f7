# SPDX-License-Identifier: BSD-3-Clause
"""The backend of one: batches run in the thread that waits for them.

It is the reference that the other kinds are held to.
"""

from __future__ import annotations

import threading
from collections import deque
from time import perf_counter_ns
from typing import Any

from teamster.spine.workers import worker_info
from teamster.spine.workers.backend import Backend, Staff
from teamster.spine.workers.batch import Batch, FunctionSpec
from teamster.spine.workers.exceptions import wrap_control_flow
from teamster.spine.workers.handle import (
    BatchDone,
    BatchResults,
    Event,
    Ready,
    WatchedHandle,
    WorkerHandle,
)
from teamster.spine.workers.runner import Runner
from teamster.spine.workers.scoreboard import Scoreboard
from teamster.spine.workers.seeds import kept_random_state
from teamster.spine.workers.worker_info import WorkerInfo


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
        if (
            isinstance(last, BatchResults)
            and last.error is None
            and last.number + len(last.values) == first
        ):
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
            self._events.append(
                BatchResults(self._worker, number, [None], wrap_control_flow(error))
            )


class SerialBackend(Backend):
    """The caller itself, as a backend; tasks run in its own context."""

    kind = "serial"

    def __init__(self, staff: Staff) -> None:
        super().__init__()
        self._staff = staff
        self._scoreboard = Scoreboard.private()
        self._waiting: deque[tuple[WorkerHandle, Batch]] = deque()
        self._events: list[Event] = []
        self._runner: tuple[int, Runner | None] = (-1, None)
        self._busy_in = 0  # the thread that runs a batch

    def start(self, index: int, count: int) -> WorkerHandle:
        """Run the initializer here and now."""
        worker = WatchedHandle(index, scoreboard=self._scoreboard)
        error: BaseException | None = None
        try:
            if self._staff.initializer is not None:
                self._staff.initializer(*self._staff.initargs)
        except Exception as raised:
            error = raised
        self._events.append(Ready(worker, error))
        return worker

    def send(self, worker: WorkerHandle, batch: Batch) -> None:
        """Keep the batch for the next `wait`."""
        self._waiting.append((worker, batch))

    def wait(self, seconds: float | None, *, eager: bool = False) -> list[Event]:
        """Run the next batch."""
        events, self._events = self._events, []
        if not self._waiting or any(isinstance(event, Ready) and event.error for event in events):
            return events
        worker, batch = self._waiting.popleft()
        spec: FunctionSpec = batch.job.spec
        before = worker_info.set_thread_worker(WorkerInfo(0, "serial", 1))
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
        except BaseException as error:
            # Ctrl-C; all is told by the next `wait`, and the item that it struck counts as run
            self._events = events
            ran = max(0, self._scoreboard.frontier() - batch.number)
            sink.interrupt(batch.number + ran, error)
            raise
        finally:
            self._busy_in = 0
            worker_info.set_thread_worker(before)
            ended = perf_counter_ns()
            events.append(BatchDone(worker, batch.number, ran, ended - began, ended_ns=ended))
        return events

    def _runner_for(self, spec: FunctionSpec) -> Runner:
        identity, runner = self._runner
        if runner is None or identity != spec.identity:
            runner = Runner(spec, spec.function, self._scoreboard.words)
            self._runner = spec.identity, runner
        return runner

    def is_inside(self) -> bool:
        """Whether a batch runs in this very thread."""
        return self._busy_in == threading.get_ident()

    def forget(self, spec: FunctionSpec) -> None:
        """Let go of the function."""
        if self._runner[0] == spec.identity:
            self._runner = (-1, None)

    def close(self, seconds: float) -> None:
        """Forget what waits."""
        self._waiting.clear()
        self._events.clear()
