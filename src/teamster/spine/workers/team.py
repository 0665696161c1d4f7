# SPDX-License-Identifier: BSD-3-Clause
"""Workers of one kind, whatever kind, and those that wait for them: leading, following, closing.

::

    offer(batch) --> queue --> Dispatcher.dispatch --> Backend.send     one lock guards queue,
    call(future)       ^                                  |             workers and jobs
          again, taken back <-- Reports.handle <-- events     the caller that waits leads: it polls
                                  |                           the backend and handles what comes;
           job.on_values, on_error; outcomes of calls         others are woken for theirs

There is no manager thread: a `map` that waits does the work of one itself. Guarantees: laws 1 to 5
of the spine, as far as the backend keeps its contract (backend.py). No callback of a future runs
with the lock held: futures are settled after it was let go.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock, get_ident
from time import perf_counter_ns

from teamster.errors import PoolClosed, UsageError
from teamster.spine.trace.ring import WAIT
from teamster.spine.trace.spans import current_ring, note
from teamster.spine.workers.batch import Batch
from teamster.spine.workers.calls import Call, OpenCalls
from teamster.spine.workers.closing import Closing
from teamster.spine.workers.dispatcher import Dispatcher
from teamster.spine.workers.handle import Event, WorkerHandle
from teamster.spine.workers.job import Job
from teamster.spine.workers.reports import Reports
from teamster.spine.workers.stragglers import Stragglers
from teamster.spine.workers.waiting import Waiter, Waiters, sooner

CLOSED = (
    "the pool was closed while this call was under way; close it when its last call has returned"
)
WAITS_IN_CALLBACK = (
    "a callback waits for its own pool, which would never end; wait in another thread"
)
WAITS_INSIDE = (
    "a task waits for the pool that runs it, which may never end; open another pool inside the task"
)


class Team:
    """Workers of one kind and what they have to do."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher
        self.backend = backend = dispatcher.backend
        self.lock = dispatcher.lock
        self._outcomes = dispatcher.outcomes
        self._reports = Reports(dispatcher)
        self.beside: list[Team] = []  # teams whose leader wants to know what is reported here
        self._begin_waiting()
        self._stragglers = Stragglers(dispatcher, self._reports)
        backend.report, backend.fail = self._report, self.fail

    def _begin_waiting(self) -> None:
        self._waiters = Waiters(self.backend.wake)
        self.calls = OpenCalls(self.lock, self._outcomes, self._waiters.wake_satisfied)
        self._closing = Closing(self.lock, self._waiters, self.backend)

    # --- what callers do --------------------------------------------------------------------------

    def offer(self, job: Job, batches: list[Batch]) -> None:
        """Queue batches of a job and hand out what can be.

        Raises:
            PoolClosed: meanwhile another thread has closed the pool.
        """
        with self.lock:
            self._check_open()
            self.dispatcher.queue.extend(batches)
            self.dispatcher.jobs.add(job)
            self._dispatch_new(job)
        self._end_if_asked()

    def call(self, job: Job, call: Call) -> bool:
        """Queue one call of a job, or return False where that has failed; raises as `offer`."""
        with self.lock:
            self._check_open()
            if job.cancelled:
                return False
            begins = self.calls.open()
            if self.dispatcher.enqueue(job, call):
                self._dispatch_new(job)
        if begins:
            self.calls.on_change(True)
        if self._outcomes and self.backend.pulls:
            # Not here: the thread that submits may hold a lock that a callback takes
            self.calls.wake_reader()
        self._end_if_asked()
        return True

    def _check_open(self) -> None:
        if self.closed:
            raise PoolClosed(CLOSED)

    def _dispatch_new(self, job: Job) -> None:
        self.dispatcher.dispatch()
        if job.timeout_ns is not None:
            self._waiters.wake(self._waiters.leader)  # it has to look at the clock from now on

    def run_until(
        self,
        done: Callable[[], bool],
        refill: Callable[[], object] | None = None,
        *,
        seconds: float | None = None,
        yielding: bool = False,
    ) -> None:
        """Wait for `done`, leading or following.

        Args:
            done: asked with the lock held, by any thread.
            refill: called in this thread when there may be room for more, without the lock.
            seconds: give up after so many.
            yielding: step down as a leader as soon as another thread waits.

        Raises:
            UsageError: this is a task of the team's own, which would wait for itself.
            PoolClosed: another thread has closed the pool.
        """
        self._check_may_wait()
        deadline_ns = None if seconds is None else perf_counter_ns() + int(seconds * 1e9)
        waiter = Waiter(done, refills=refill is not None, yielding=yielding)
        try:
            with self.lock:
                self._waiters.add(waiter)
            while not self._wait_once(waiter, refill, deadline_ns):
                pass
        finally:
            with self.lock:
                self._waiters.remove(waiter)
                self._step_down(waiter)
                self._tell_waiters()  # it may have been asked for items right before it was done
            self._settle_if_any(waiter)

    def _wait_once(
        self, waiter: Waiter, refill: Callable[[], object] | None, deadline_ns: int | None
    ) -> bool:
        """Look, hand out, and wait for what comes next; returns whether it is over."""
        # From here on no report is missed, also not between `refill` and the wait (a test hung)
        waiter.look_around()
        asked = self._before_waiting(waiter, refill)
        with self.lock:
            if waiter.done() or (waiter.yielding and len(self._waiters) > 1):
                return True
            self._check_open()
            self.dispatcher.dispatch()
            if asked:
                self._offer_room()  # to the next caller, if this one has left any
            leads = self._waiters.leader in (waiter, None)
            look_s = self._look(waiter) if leads else None
            pause = sooner(look_s, deadline_ns)
            if pause is not None and pause < 0:
                return True
            if waiter.woken or self._has_to_settle(waiter) or self.closed:  # by that look
                return False
            self._waiters.begin_rest(
                waiter, leads=leads, polls=leads and self.backend.pulls, sleeps=look_s is None
            )
            eager = waiter.polls and self.dispatcher.answers_soon()
        if waiter.polls:
            self._poll(waiter, pause, eager)
        else:
            began = perf_counter_ns()
            waiter.rest(pause)
            note(current_ring(), WAIT, "wait for workers", began)
        return False

    def _look(self, waiter: Waiter) -> float | None:
        """Look at the clock; returns for how long nothing is due (s)."""
        pause = self._stragglers.look()
        if self._outcomes and not (self.backend.pulls or waiter.yielding):
            self.calls.wake_reader()  # this thread may hold a lock that a callback takes
        return pause

    def _before_waiting(self, waiter: Waiter, refill: Callable[[], object] | None) -> bool:
        """Do what wants no lock: settle futures, end the team, take items; whether it took any."""
        if self._has_to_settle(waiter) or self._closing.asked:
            self._step_down(waiter)
            self._settle_if_any(waiter)
            self._end_if_asked()
        if refill is None:
            return False
        with self.lock:
            asked = self._waiters.is_asked(waiter)
        if asked:
            self._step_down(waiter)
            refill()
        return asked

    def _step_down(self, waiter: Waiter) -> None:
        """Let others lead, while this one does what may take long, or waits for this very team."""
        with self.lock:
            self._waiters.step_down(waiter)
            if self.closed:
                self._closing.leader_has_left()

    def _has_to_settle(self, waiter: Waiter) -> bool:
        """Whether futures are to be settled in this thread."""
        if self.backend.pulls:
            return bool(self._outcomes or (waiter.yielding and self.calls.has_left))
        return waiter.yielding and bool(self._outcomes)  # the rest is done by threads of workers

    def _settle_if_any(self, waiter: Waiter | None = None) -> None:
        if (self._outcomes or self.calls.has_left) and (
            self.backend.pulls or self.closed or (waiter is not None and waiter.yielding)
        ):
            self.calls.settle()

    def wake_reader(self) -> None:
        """Have the leader that yields, if one leads, look around."""
        with self.lock:
            self._waiters.wake_if_yielding()

    def _check_may_wait(self) -> None:
        calls_back = self.calls.settled_here > 0  # in a worker's thread; the others work on
        if self.backend.is_inside() and not (calls_back and self.dispatcher.count > 1):
            raise UsageError(WAITS_INSIDE)
        self.check_no_callback()

    def check_no_callback(self) -> None:
        """Refuse with a `UsageError` to wait in a callback of a map's progress."""
        if self.handled_here:
            raise UsageError(WAITS_IN_CALLBACK)

    # --- leading ----------------------------------------------------------------------------------

    def poll_once(self) -> None:
        """Read what the workers have sent, without waiting."""
        waiter = Waiter(lambda: True)
        with self.lock:
            if self._waiters.leader is not None or self.closed or not self.backend.pulls:
                return
            self._waiters.leader = waiter
        try:
            self._poll(waiter, 0, eager=False)
        finally:
            self._step_down(waiter)
            self._settle_if_any()
            self._end_if_asked()

    def _poll(self, waiter: Waiter, seconds: float | None, eager: bool) -> None:
        """Lead: take what the backend brings."""
        try:
            events = self.backend.wait(seconds, eager=eager)
            with self.lock:
                waiter.polls = False
                self._reports.handle_all(events)
                self.dispatcher.dispatch()
                self._tell_waiters()
        except KeyboardInterrupt:
            with self.lock:
                self.dispatcher.distrust()
            raise
        except BaseException as error:
            # A mistake of ours, or a callback's: what was read is lost, so no call may wait for it
            self.fail(error)
            raise
        finally:
            waiter.polls = False

    def ask_for_lead(self, deputy: Callable[[], None]) -> bool:
        """Whether no thread reads the workers' answers; else `deputy` is called when none does."""
        with self.lock:
            return self._waiters.ask(deputy)

    @property
    def leaderless(self) -> bool:
        """Whether no thread reads the workers' answers."""
        return self._waiters.leader is None

    # --- telling those that wait; the lock is held ------------------------------------------------

    def _tell_waiters(self) -> None:
        """Something was reported."""
        self._waiters.begin_round()
        self._waiters.wake_satisfied()
        self._offer_room()

    def _offer_room(self) -> None:
        """Have one more caller hand out items, if there is room; it passes on what it leaves."""
        wanted = self._waiters.have_items and not (self.backend.pulls and self.dispatcher.queue)
        if wanted and self.dispatcher.room_for(self.backend.deepest) > 0:
            self._waiters.offer_room()

    def nudge(self) -> None:
        """Have all that wait look at what to do next, for what is no report; the lock is held."""
        self._waiters.wake_all()

    # --- events -----------------------------------------------------------------------------------

    @property
    def handled_here(self) -> bool:
        """Whether this thread is inside an event: a callback of a map's progress, a serial task."""
        leader = self._waiters.leader
        if self.dispatcher.handler == get_ident():
            return True
        return leader is not None and leader.thread == get_ident() and self.backend.is_inside()

    def _report(self, worker: WorkerHandle, events: list[Event]) -> None:
        """Results and events from a worker's own thread."""
        with self.lock:
            self._reports.handle_all([*worker.salvage(), *events])
            worker.absent = bool(self._outcomes)
            self._dispatch_after(worker)
            self._tell_waiters()
            for team in self.beside:
                team.nudge()
        if worker.absent:
            self.calls.settle()
            with self.lock:
                worker.absent = False
                self._dispatch_after(worker)
        self._end_if_asked()

    def _dispatch_after(self, worker: WorkerHandle) -> None:
        self.dispatcher.dispatch()
        if worker.outstanding and worker.outstanding[-1].size > 1:
            self._waiters.wake_if_asleep()  # to fetch results of one while another item takes long

    def fail(self, error: BaseException) -> None:
        """End every call with `error`: a thread that worked for them cannot go on."""
        with self.lock:
            self.dispatcher.fail_all(error)
            self._waiters.wake_all()
        self.calls.settle()

    # --- the end ----------------------------------------------------------------------------------

    def cancel(self, job: Job, *, kill: bool) -> None:
        """Start no more items of `job`; with `kill`, end the workers that run one, if possible."""
        if self.closed:  # the lock may be held by a daemon thread that stopped with the interpreter
            return
        with self.lock:
            if job not in self.dispatcher.jobs:
                return
            self._stragglers.cancel(job, kill=kill and self.backend.can_kill)
            self._waiters.wake_all()

    def close(self, seconds: float, error: BaseException | None = None) -> None:
        """End all workers: idle ones by themselves in `seconds`; open jobs fail with `error`."""
        with self.lock:
            if self.closed:
                if not self.handled_here:
                    self._end_if_asked()
                return
            self.dispatcher.closed = True
            self.dispatcher.fail_all(error or PoolClosed(CLOSED))
            self._waiters.wake_all()
            self._closing.ask(seconds)
            if self.handled_here:  # a callback, or the last future of a nameless pool is gone
                return
        self._settle_if_any()
        self._end_if_asked()
        self._closing.wait()

    def _end_if_asked(self) -> None:
        if self._closing.end_if_asked():
            with self.lock:
                self.dispatcher.workers.clear()
                self._waiters.wake_all()

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self.dispatcher.closed

    def disown(self) -> None:
        """In a forked copy: the workers are the original's, and so is the holder of a lock."""
        self.lock = self.dispatcher.lock = RLock()
        self._begin_waiting()
        self.dispatcher.closed = True
