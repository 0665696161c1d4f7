# SPDX-License-Identifier: BSD-3-Clause
"""The crew of thread workers: each waits for batches of its own and reports from its own thread.

Threads cannot be killed; what runs when a pool ends runs to its end, as a daemon, and its result goes nowhere.
"""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from time import perf_counter_ns, thread_time_ns
from typing import Any, Protocol

from teamster.machine.native_threads import ProcessWideLimit, limit_in_this_thread
from teamster.machine.run_delay import RunDelay
from teamster.spine.trace.ring import INITIALISE, WAIT
from teamster.spine.trace.spans import current_ring, leave_thread, name_lane, note
from teamster.spine.workers import whoami
from teamster.spine.workers.contract import Batch, Died, Event, Finished, Kept, Member, Ready, Spec, WorkerInfo
from teamster.spine.workers.failure import domesticate
from teamster.spine.workers.runner import Runner
from teamster.spine.workers.slate import LIMIT, NO_LIMIT, Slate
from teamster.spine.workers.surroundings import Scene, State, take, take_of_thread

FLUSH_NS = 5_000_000


class ThreadMember(Member):
    """A worker thread, as the team sees it."""

    __slots__ = ("finished", "inbox", "runner", "slate", "thread")

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.slate = Slate.private()
        self.inbox: SimpleQueue[Batch | None] = SimpleQueue()
        self.thread: threading.Thread | None = None
        self.runner: tuple[int, Runner, contextvars.Context] | None = None  # of the function that it ran last
        self.finished: deque[tuple[int, list[Any]]] = deque()  # results that the team has not taken: it does so under its lock


class ReportSink:
    """Gathers results, and has the team take them every few milliseconds."""

    def __init__(self, member: ThreadMember, report: Callable[[Member, list[Event]], None]) -> None:
        self._member = member
        self._report = report
        self._told_ns = perf_counter_ns()

    def keep(self, first: int, values: list[Any]) -> None:
        """Take results; they follow those taken before."""
        self._member.finished.append((first, values))
        if perf_counter_ns() - self._told_ns > FLUSH_NS:
            self.tell([])

    def keep_failure(self, first: int, error: BaseException) -> None:
        """Take an exception."""
        self.tell([Kept(self._member, first, [None], domesticate(error))])

    def tell(self, events: list[Event]) -> None:
        """Have the team take what was gathered, and `events` after it."""
        self._report(self._member, events)
        self._told_ns = perf_counter_ns()


class Place(Protocol):
    """Where the tasks of one member run: its own thread, or an interpreter that its thread enters."""

    def run(self, batch: Batch, member: ThreadMember, sink: ReportSink) -> int:
        """Run a batch; returns how many items were run."""

    def close(self) -> None:
        """The member ends."""


class _InThread:
    """The thread itself.

    Raises:
        BaseException: what the initializer raised.
    """

    def __init__(
        self, info: WorkerInfo, native_threads: int, initialize: Callable[[], object] | None, limit: ProcessWideLimit
    ) -> None:
        whoami.set_thread_worker(info)
        limit_in_this_thread(native_threads)
        self._native_threads = native_threads
        self._limit = limit
        self._own: list[tuple[contextvars.ContextVar[Any], Any]] = []  # what the initializer has set
        before = None
        if initialize is not None:
            before, context = take(), contextvars.copy_context()
            initialize()
            after = contextvars.copy_context()
            self._own = [(variable, value) for variable, value in after.items() if context.get(variable, after) is not value]
        self._scene = Scene(before)

    def run(self, batch: Batch, member: ThreadMember, sink: ReportSink) -> int:
        """Run a batch in a copy of the caller's context."""
        limit_in_this_thread(self._native_threads)
        self._limit.refresh()  # libraries that a task has loaded since
        spec: Spec = batch.job.spec
        known = member.runner
        if known is None or known[0] != spec.identity:
            context = spec.context.copy() if spec.context is not None else contextvars.Context()
            context.run(self._furnish, spec.state)
            known = member.runner = spec.identity, Runner(spec, spec.function, member.slate.words), context
        _, runner, context = known
        return context.run(runner.run, batch.items, batch.number, max(batch.first, 0), sink)

    def _furnish(self, state: State) -> None:
        """Set what threads have for themselves: what the caller has set, and over that what the initializer has."""
        self._scene.enter(state)
        for variable, value in self._own:
            variable.set(value)

    def close(self) -> None:
        """Nothing is its own."""


class ThreadCrew:
    """Thread workers of one pool."""

    kind = "thread"
    pulls = False
    can_kill = False
    depth = 1
    deepest = 1

    def __init__(
        self, count: int, initializer: Callable[..., object] | None, initargs: tuple[Any, ...], native_threads: int
    ) -> None:
        self.report: Callable[[Member, list[Event]], None] = lambda member, events: None
        self.fail: Callable[[BaseException], None] = lambda error: None
        self._count = count
        self._initialize = partial(initializer, *initargs) if initializer is not None else None
        self._native_threads = native_threads
        self._limit = ProcessWideLimit(native_threads)
        self._members: list[ThreadMember] = []

    def prepare(self, spec: Spec, context: contextvars.Context) -> None:
        """Keep the context; each worker runs in a copy of it."""
        spec.context, spec.state = context, take_of_thread()

    def enlist(self, index: int) -> ThreadMember:
        """Start a thread."""
        if not self._members:
            self._limit.apply()
        member = ThreadMember(index)
        member.thread = threading.Thread(target=self._live, args=(member,), name=f"teamster-worker-{index}", daemon=True)
        member.thread.start()
        self._members.append(member)
        return member

    def _place(self, member: ThreadMember) -> Place:
        """Where the tasks of a member run; made in its thread."""
        return _InThread(WorkerInfo(member.index, self.kind, self._count), self._native_threads, self._initialize, self._limit)

    def _live(self, member: ThreadMember) -> None:
        try:
            self._work(member)
        except BaseException as error:  # no task's: those are results. Who waits for this thread must not wait for ever
            self.fail(error)

    def _work(self, member: ThreadMember) -> None:
        name_lane(f"{self.kind} {member.index}", self.kind, member.index)
        place: Place | None = None
        began = perf_counter_ns()
        error: BaseException | None = None
        try:
            place = self._place(member)
        except BaseException as raised:
            error = domesticate(raised)
        note(current_ring(), INITIALISE, "start", began)
        self.report(member, [Ready(member, error)])
        sink, delay, idle_ns = ReportSink(member, self.report), RunDelay(), perf_counter_ns()
        while (batch := member.inbox.get()) is not None:
            note(current_ring(), WAIT, "wait for work", idle_ns)
            began, cpu_began, delay_began = perf_counter_ns(), thread_time_ns(), delay.read_ns()
            ran = place.run(batch, member, sink) if place is not None else 0  # what was handed before it failed is not run
            idle_ns = perf_counter_ns()
            cpu_ns, delay_ns = thread_time_ns() - cpu_began, delay.read_ns() - delay_began
            sink.tell([Finished(member, batch.number, ran, idle_ns - began, cpu_ns, delay_ns, idle_ns)])
            del batch
        if place is not None:
            place.close()
        delay.close()
        leave_thread()
        ended = Died(member, None, lambda index, attempts: RuntimeError(f"{self.kind} worker ended before item {index}"))
        self.report(member, [ended])

    def resize(self, count: int) -> None:
        """Tell it to those who start from now on."""
        self._count = count

    def hand(self, member: Member, batch: Batch) -> None:
        """Put a batch into the thread's inbox."""
        assert isinstance(member, ThreadMember)
        member.inbox.put(batch)

    def flush(self) -> None:
        """Nothing is held back."""

    def wait(self, seconds: float | None, *, eager: bool = False) -> list[Event]:
        """Never called: threads report by themselves."""
        raise AssertionError("thread workers report by themselves")

    def wake(self) -> None:
        """Nobody waits in here."""

    def is_inside(self) -> bool:
        """Whether this is one of the threads."""
        return any(member.thread is threading.current_thread() for member in list(self._members))

    def forget(self, spec: Spec) -> None:
        """Let go of the function."""
        for member in list(self._members):
            if member.runner is not None and member.runner[0] == spec.identity:
                member.runner = None

    def running(self, member: Member) -> tuple[int, int, int] | None:
        """What the thread's slate says."""
        assert isinstance(member, ThreadMember)
        return member.slate.running()

    def frontier(self, member: Member) -> int:
        """What the slate says."""
        assert isinstance(member, ThreadMember)
        return member.slate.frontier()

    def recall(self, member: Member, number: int) -> None:
        """Set the limit on the thread's slate."""
        assert isinstance(member, ThreadMember)
        member.slate.words[LIMIT] = number

    def resume(self, member: Member) -> None:
        """Lift the limit."""
        assert isinstance(member, ThreadMember)
        member.slate.words[LIMIT] = NO_LIMIT

    def has_unsent(self, member: Member) -> bool:
        """Whether the thread has finished items that the team has not taken."""
        assert isinstance(member, ThreadMember)
        return bool(member.finished)

    def rescue(self, member: Member) -> list[Event]:
        """Take what the thread has finished; the team's lock is held, so nobody else does."""
        assert isinstance(member, ThreadMember)
        finished, events = member.finished, list[Kept]()
        while finished:
            first, values = finished.popleft()
            if events and events[-1].number + len(events[-1].values) == first:
                events[-1].values += values
            else:
                events.append(Kept(member, first, values))
        return [*events]

    def kill(self, member: Member) -> None:
        """Threads cannot be killed."""
        raise AssertionError("threads cannot be killed")

    def dismiss(self, member: Member) -> None:
        """The thread ends after what it has."""
        assert isinstance(member, ThreadMember)
        member.inbox.put(None)

    def release(self, member: Member) -> None:
        """With the last thread goes the limit: what the caller runs itself meanwhile may use its libraries' threads again."""
        if member in self._members:
            self._members.remove(member)
            if not self._members:
                self._limit.restore()

    def send_segments_home(self) -> None:
        """Nothing is shared by copy here."""

    def bytes_moved(self) -> tuple[int, int]:
        """Nothing moves between threads."""
        return 0, 0

    def close(self, seconds: float) -> None:
        """End all threads that are not in the middle of an item; wait for those, `seconds` at most in all."""
        members = list(self._members)
        for member in members:
            self.recall(member, 0)
            self.dismiss(member)
        deadline = perf_counter_ns() + int(seconds * 1e9)
        for member in members:
            if member.thread is not None and member.thread is not threading.current_thread():
                member.thread.join(max(0.0, (deadline - perf_counter_ns()) / 1e9))
        self._members.clear()
        self._limit.restore()
