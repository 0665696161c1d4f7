# SPDX-License-Identifier: BSD-3-Clause
"""The backend of thread workers: each waits for batches of its own and reports from its own thread.

Threads cannot be killed; what runs when a pool ends runs to its end, as a daemon, and its result
goes nowhere.
"""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable
from functools import partial
from time import perf_counter_ns, thread_time_ns
from typing import Any, Protocol

from teamster.machine.native_threads import ProcessWideLimit, limit_in_this_thread
from teamster.machine.run_delay import RunDelay
from teamster.spine.trace.ring import INITIALISE, WAIT
from teamster.spine.trace.spans import current_ring, leave_thread, name_lane, note
from teamster.spine.workers import worker_info
from teamster.spine.workers.backend import Backend, Staff
from teamster.spine.workers.batch import Batch, FunctionSpec
from teamster.spine.workers.exceptions import wrap_control_flow
from teamster.spine.workers.handle import (
    BatchDone,
    BatchResults,
    Died,
    Event,
    Ready,
    WatchedHandle,
    WorkerHandle,
)
from teamster.spine.workers.inbox_thread import InboxThread, Take
from teamster.spine.workers.library_state import Scene, State, take, take_of_thread
from teamster.spine.workers.runner import Runner
from teamster.spine.workers.worker_info import WorkerInfo

FLUSH_NS = 5_000_000  # sooner than a user notices, and seldom beside an item's microseconds


class ThreadHandle(WatchedHandle):
    """A worker thread, as the team sees it."""

    __slots__ = ("finished", "on_release", "runner", "thread")

    def __init__(self, index: int, on_release: Callable[[ThreadHandle], None]) -> None:
        super().__init__(index)
        self.on_release = on_release
        self.thread: InboxThread
        # Of the function that it ran last
        self.runner: tuple[int, Runner, contextvars.Context] | None = None
        # Results that the team has not taken: it does so under its lock
        self.finished: deque[tuple[int, list[Any]]] = deque()

    def unsent(self) -> bool:
        """Whether the thread has finished items that the team has not taken."""
        return bool(self.finished)

    def salvage(self) -> list[Event]:
        """Take what the thread has finished; the team's lock is held, so no other thread does."""
        finished, events = self.finished, list[BatchResults]()
        while finished:
            first, values = finished.popleft()
            if events and events[-1].number + len(events[-1].values) == first:
                events[-1].values += values
            else:
                events.append(BatchResults(self, first, values))
        return [*events]

    def stop(self) -> None:
        """The thread ends after what it has."""
        self.thread.end()

    def release(self) -> None:
        """It is gone."""
        self.on_release(self)


class ReportSink:
    """Gathers results, and has the team take them every few milliseconds."""

    def __init__(
        self, worker: ThreadHandle, report: Callable[[WorkerHandle, list[Event]], None]
    ) -> None:
        self._worker = worker
        self._report = report
        self._told_ns = perf_counter_ns()

    def keep(self, first: int, values: list[Any]) -> None:
        """Take results; they follow those taken before."""
        self._worker.finished.append((first, values))
        if perf_counter_ns() - self._told_ns > FLUSH_NS:
            self.tell([])

    def keep_failure(self, first: int, error: BaseException) -> None:
        """Take an exception."""
        self.tell([BatchResults(self._worker, first, [None], wrap_control_flow(error))])

    def tell(self, events: list[Event]) -> None:
        """Have the team take what was gathered, and `events` after it."""
        self._report(self._worker, events)
        self._told_ns = perf_counter_ns()


class Place(Protocol):
    """Where the tasks of one worker run.

    That is its own thread, or an interpreter that its thread enters.
    """

    def run(self, batch: Batch, worker: ThreadHandle, sink: ReportSink) -> int:
        """Run a batch; returns how many items were run."""

    def close(self) -> None:
        """The worker ends."""


class _InThread:
    """The thread itself.

    Raises:
        BaseException: what the initializer raised.
    """

    def __init__(
        self,
        info: WorkerInfo,
        native_threads: int,
        initialize: Callable[[], object] | None,
        limit: ProcessWideLimit,
    ) -> None:
        worker_info.set_thread_worker(info)
        limit_in_this_thread(native_threads)
        self._native_threads = native_threads
        self._limit = limit
        # What the initializer has set
        self._own: list[tuple[contextvars.ContextVar[Any], Any]] = []
        before = None
        if initialize is not None:
            before, context = take(), contextvars.copy_context()
            initialize()
            after = contextvars.copy_context()
            self._own = [
                (variable, value)
                for variable, value in after.items()
                if context.get(variable, after) is not value
            ]
        self._scene = Scene(before)

    def run(self, batch: Batch, worker: ThreadHandle, sink: ReportSink) -> int:
        """Run a batch in a copy of the caller's context."""
        limit_in_this_thread(self._native_threads)
        self._limit.refresh()  # libraries that a task has loaded since
        spec: FunctionSpec = batch.job.spec
        known = worker.runner
        if known is None or known[0] != spec.identity:
            context = spec.context.copy() if spec.context is not None else contextvars.Context()
            context.run(self._furnish, spec.state)
            known = worker.runner = (
                spec.identity,
                Runner(spec, spec.function, worker.scoreboard.words),
                context,
            )
        _, runner, context = known
        return context.run(runner.run, batch.items, batch.number, max(batch.first, 0), sink)

    def _furnish(self, state: State) -> None:
        """Set what threads have for themselves.

        That is what the caller has set, and over it what the initializer has.
        """
        self._scene.enter(state)
        for variable, value in self._own:
            variable.set(value)

    def close(self) -> None:
        """Nothing is its own."""


class ThreadBackend(Backend):
    """Thread workers of one pool."""

    kind = "thread"
    pulls = False

    def __init__(self, staff: Staff) -> None:
        super().__init__()
        self._staff = staff
        self._initialize = (
            partial(staff.initializer, *staff.initargs) if staff.initializer is not None else None
        )
        self._limit = ProcessWideLimit(staff.native_threads)
        self._workers: list[ThreadHandle] = []

    def prepare(self, spec: FunctionSpec, context: contextvars.Context) -> None:
        """Keep the context; each worker runs in a copy of it."""
        spec.context, spec.state = context, take_of_thread()

    def start(self, index: int, count: int) -> ThreadHandle:
        """Start a thread."""
        if not self._workers:
            self._limit.apply()
        worker = ThreadHandle(index, self._release)
        info = WorkerInfo(index, self.kind, count)
        worker.thread = InboxThread(f"teamster-worker-{index}", self._live, worker, info)
        worker.thread.start()
        self._workers.append(worker)
        return worker

    def _place(self, info: WorkerInfo) -> Place:
        """Where the tasks of a worker run; made in its thread."""
        return _InThread(info, self._staff.native_threads, self._initialize, self._limit)

    def _live(self, take: Take, worker: ThreadHandle, info: WorkerInfo) -> None:
        try:
            self._work(take, worker, info)
        except BaseException as error:
            # No task's: those are results. A caller that waits for this must not wait for ever
            self.fail(error)

    def _work(self, take: Take, worker: ThreadHandle, info: WorkerInfo) -> None:
        name_lane(f"{self.kind} {worker.index}", self.kind, worker.index)
        place: Place | None = None
        began = perf_counter_ns()
        error: BaseException | None = None
        try:
            place = self._place(info)
        except BaseException as raised:
            error = wrap_control_flow(raised)
        note(current_ring(), INITIALISE, "start", began)
        self.report(worker, [Ready(worker, error)])
        sink, delay, idle_ns = ReportSink(worker, self.report), RunDelay(), perf_counter_ns()
        while (batch := take()) is not None:
            note(current_ring(), WAIT, "wait for work", idle_ns)
            began, cpu_began, delay_began = perf_counter_ns(), thread_time_ns(), delay.read_ns()
            # What was handed before it failed is not run
            ran = place.run(batch, worker, sink) if place is not None else 0
            idle_ns = perf_counter_ns()
            cpu_ns, delay_ns = thread_time_ns() - cpu_began, delay.read_ns() - delay_began
            sink.tell(
                [BatchDone(worker, batch.number, ran, idle_ns - began, cpu_ns, delay_ns, idle_ns)]
            )
            del batch
        if place is not None:
            place.close()
        delay.close()
        leave_thread()
        ended = Died(
            worker,
            None,
            lambda index, attempts: RuntimeError(f"{self.kind} worker ended before item {index}"),
        )
        self.report(worker, [ended])

    def send(self, worker: WorkerHandle, batch: Batch) -> None:
        """Put a batch into the thread's inbox."""
        assert isinstance(worker, ThreadHandle)
        worker.thread.put(batch)

    def is_inside(self) -> bool:
        """Whether this is one of the threads."""
        return any(worker.thread.is_current() for worker in list(self._workers))

    def forget(self, spec: FunctionSpec) -> None:
        """Let go of the function."""
        for worker in list(self._workers):
            if worker.runner is not None and worker.runner[0] == spec.identity:
                worker.runner = None

    def _release(self, worker: ThreadHandle) -> None:
        """With the last thread goes the limit.

        What the caller runs itself meanwhile may use its libraries' threads again.
        """
        if worker in self._workers:
            self._workers.remove(worker)
            if not self._workers:
                self._limit.restore()

    def close(self, seconds: float) -> None:
        """End all threads that are not in the middle of an item.

        Wait for those, `seconds` at most in all.
        """
        workers = list(self._workers)
        for worker in workers:
            worker.reclaim(0)
            worker.stop()
        deadline = perf_counter_ns() + int(seconds * 1e9)
        for worker in workers:
            worker.thread.join((deadline - perf_counter_ns()) / 1e9)
        self._workers.clear()
        self._limit.restore()
