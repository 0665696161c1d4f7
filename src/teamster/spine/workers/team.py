# SPDX-License-Identifier: BSD-3-Clause
"""The team: hands batches to workers, takes their reports, recovers from their deaths. Knows no kind of worker.

::

    offer(batch) --> queue --> dispatch --> crew.hand         one lock guards queue, members and jobs
                       ^                      |
          again, taken back <-- handle <-- events             whoever waits leads: polls the crew and handles what comes;
                                  |                           who waits beside a leader sleeps until something changed
                             job.on_values / on_error

There is no manager thread: a `map` that waits does the work of one itself. Guarantees: laws 1 to 5 of the spine, as far as the crew
keeps its contract (contract.py).
"""

from __future__ import annotations

import contextvars
import itertools
import threading
from collections.abc import Callable
from threading import get_ident
from time import perf_counter_ns
from typing import Any

from teamster.errors import PoolClosed, UsageError
from teamster.spine.trace.ring import WAIT
from teamster.spine.trace.spans import current_ring, note
from teamster.spine.workers.contract import Batch, Crew, Event, Member, Spec, Style
from teamster.spine.workers.handing import Handing
from teamster.spine.workers.job import Job
from teamster.spine.workers.watch import Watch

_identities = itertools.count(1)

CLOSED = "the pool was closed while this call was under way; close it when its last call has returned"
_WORTH_SLEEP_NS = 500_000  # answers that come this seldom are not worth looking for without sleeping


class Team(Handing):
    """Workers of one kind and what they have to do."""

    def __init__(self, crew: Crew, count: int, *, max_tasks: int | None = None, lock: threading.RLock | None = None) -> None:
        super().__init__(crew, count, max_tasks=max_tasks, lock=lock)
        self.changed = threading.Condition(self.lock)
        self.beside: list[Team] = []  # teams whose leader wants to know what is reported here
        self._leader = 0  # the thread that polls the crew
        self._leader_yields = False
        self._followers = 0
        self._ended = threading.Event()
        self._ending_s: float | None = None  # set when it is asked to close the team in the middle of that
        self._changes = 0  # counts whatever may end a wait
        self._watch = Watch(self)
        crew.report = self._report

    # --- what callers do ---------------------------------------------------------------------------------------------------

    def learn(
        self, function: Callable[..., Any], style: Style, *, seed: int | None = None, careful: bool = False, hurry: bool = False
    ) -> Spec:
        """Make a function ready to be handed to workers, with the caller's context.

        Raises:
            Exception: the function does not pickle.
        """
        spec = Spec(function, style, seed, careful or seed is not None, hurry, identity=next(_identities))
        self.crew.prepare(spec, contextvars.copy_context())
        return spec

    def offer(self, job: Job, batches: list[Batch]) -> None:
        """Queue batches of a job and hand out what can be.

        Raises:
            PoolClosed: meanwhile another thread has closed the pool.
        """
        with self.lock:
            if self.closed:
                raise PoolClosed(CLOSED)
            self.queue.extend(batches)
            self.jobs.add(job)
            self.dispatch()
            if job.timeout_ns is not None:
                self.crew.wake()  # whoever leads has to look at the clock from now on
        self._end_if_asked()

    def run_until(
        self,
        done: Callable[[], bool],
        refill: Callable[[], None] | None = None,
        *,
        seconds: float | None = None,
        yielding: bool = False,
    ) -> None:
        """Wait for `done`, leading or following.

        Args:
            done: asked with the lock held.
            refill: called in this thread whenever something has changed, without the lock.
            seconds: give up after so many.
            yielding: step down as a leader as soon as anybody else waits.

        Raises:
            UsageError: this is a task or a callback of the team's own, which would wait for itself.
            PoolClosed: another thread has closed the pool.
        """
        self._check_may_wait()
        deadline_ns = None if seconds is None else perf_counter_ns() + int(seconds * 1e9)
        while True:
            self._end_if_asked()
            seen = self._changes
            if refill is not None:
                refill()
            with self.lock:
                if done() or (yielding and self._followers):
                    return
                if self.closed:
                    raise PoolClosed(CLOSED)
                self.dispatch()
                pause = _sooner(self._watch.look(), deadline_ns)
                if pause is not None and pause < 0:
                    return
                if self.closed:  # by a callback of what the look brought
                    continue
                if seen != self._changes:
                    # A worker that reports between `refill`, which found no room, and here has told nobody: we did not wait yet.
                    # A test hung with every worker idle and one item left to pull; another one when the reader of futures led
                    # in that moment, and we led after it, waiting for workers that had nothing to do.
                    continue
                if self._leader or not self.crew.pulls:
                    self._follow(pause)
                    continue
                self._leader, self._leader_yields = get_ident(), yielding
            self._lead(pause)

    def _check_may_wait(self) -> None:
        if self.crew.is_inside():
            raise UsageError("a task waits for the pool that runs it, which may never end; open another pool inside the task")
        self.check_no_callback()

    def check_no_callback(self) -> None:
        """Refuse a wait in the middle of an event.

        Raises:
            UsageError: this is a callback of a future.
        """
        if self.handled_here:
            raise UsageError("a callback of a future waits for its own pool, which would never end; wait in another thread")

    def glance(self) -> None:
        """Read what the workers have sent, without waiting."""
        with self.lock:
            if self._leader or self.closed or not self.crew.pulls:
                return
            self._leader = get_ident()
        self._lead(0)

    def _follow(self, seconds: float | None) -> None:
        if self._leader_yields:
            self.crew.wake()
        self._followers += 1
        began = perf_counter_ns()
        try:
            self.changed.wait(seconds)
        finally:
            self._followers -= 1
            note(current_ring(), WAIT, "wait for workers", began)

    def _lead(self, seconds: float | None) -> None:
        try:
            eager = not any(job.batch_ns > _WORTH_SLEEP_NS for job in self.jobs)
            events = self.crew.wait(seconds, eager=eager)
            with self.lock:
                for event in events:
                    self.handle(event)
                self.dispatch()
        except KeyboardInterrupt:
            with self.lock:
                self._distrust()
            raise
        finally:
            with self.lock:
                self._leader, self._leader_yields = 0, False
                self._changes += 1
                if self._followers or self.closed:  # who closes waits for us, too
                    self.changed.notify_all()
            self._end_if_asked()

    def _distrust(self) -> None:
        """Ctrl-C may have struck between the reading of a result and its delivery: what is under way starts over elsewhere."""
        for member in self.members:
            if member.outstanding and self.crew.can_kill and member.doomed is None:
                member.doomed = (0, None)
                self.crew.kill(member)

    @property
    def leaderless(self) -> bool:
        """Whether nobody reads the workers' answers."""
        return not self._leader

    @property
    def handled_here(self) -> bool:
        """Whether this thread is in the middle of an event: this is a callback of a future, or a serial task."""
        return self._handler == get_ident() or (self._leader == get_ident() and self.crew.is_inside())

    def handle(self, event: Event) -> None:
        """Take one event of the crew."""
        with self._calling_back():
            super().handle(event)

    def cancel(self, job: Job, *, kill: bool) -> None:
        """Start no item of `job` any more; with `kill`, end the workers that run one, where that is possible."""
        if self.closed:  # the lock may be held by a daemon thread that stopped with the interpreter (a test hung in a __del__)
            return
        with self.lock:
            if job not in self.jobs:
                return
            job.cancelled = True
            self._drop(job)
            for member in self.members:
                if not any(batch.job is job for batch in member.outstanding):
                    continue
                if kill and self.crew.can_kill:
                    member.doomed = (0, None)
                    self.crew.kill(member)
                else:
                    self._watch.recall(member)
            self._changes += 1
            self.changed.notify_all()

    def finish(self, job: Job) -> None:
        """Everything of `job` is reported: forget it."""
        with self.lock:
            self._drop(job)

    def close(self, seconds: float, error: BaseException | None = None) -> None:
        """End all workers: idle ones by themselves within `seconds`, then the rest; jobs that are not done fail with `error`."""
        with self.lock:
            if self.closed:
                if not self.handled_here:
                    self._end_if_asked()
                return
            self.closed = True
            self._fail_all(error or PoolClosed(CLOSED))
            self.changed.notify_all()
            self._ending_s = seconds
            if self.handled_here:  # a callback, or the last future of a pool without a name is gone: whoever called it goes on
                return
        self._end_if_asked()
        self._ended.wait()  # another thread may have been faster

    def _end_if_asked(self) -> None:
        """End the crew, when somebody wants that and nobody reads from it."""
        if self._ending_s is None:
            return
        with self.lock:
            seconds, self._ending_s = self._ending_s, None
            while self._leader and seconds is not None:
                self.crew.wake()
                self.changed.wait(1.0)
        if seconds is None:
            return
        try:
            self.crew.close(seconds)
        finally:
            self._ended.set()
        with self.lock:
            self.members.clear()
            self.changed.notify_all()

    def disown(self) -> None:
        """In a forked copy of the program: the workers are the original's, and a lock may be held by a thread that is not here."""
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.closed = True
        self._ending_s = None

    # --- taking reports ----------------------------------------------------------------------------------------------------

    def _report(self, member: Member, events: list[Event]) -> None:
        """Results and events from a member's own thread."""
        with self.lock:
            for event in [*self.crew.rescue(member), *events]:
                self.handle(event)
            self.dispatch()
            self._changes += 1
            self.changed.notify_all()
            for team in self.beside:
                team.nudge()
        self._end_if_asked()

    def nudge(self) -> None:
        """Have whoever leads look at what to hand out next; the lock is held."""
        self._changes += 1
        if self._leader:
            self.crew.wake()

    def expire(self, member: Member, number: int, error: BaseException) -> None:
        """Kill a member because of the item that it runs."""
        member.doomed = (number, error)
        self.ledger.timeouts += 1
        self.crew.kill(member)

    def note_bytes(self) -> None:
        """Bring the ledger's byte counts up to date."""
        self.ledger.pickled_bytes, self.ledger.arena_bytes = self.crew.bytes_moved()


def _sooner(pause: float | None, deadline_ns: int | None) -> float | None:
    """The shorter of a pause and what is left until a deadline, in seconds; negative when the deadline is over."""
    if deadline_ns is None:
        return pause
    left = (deadline_ns - perf_counter_ns()) / 1e9
    return left if pause is None else min(pause, left)
