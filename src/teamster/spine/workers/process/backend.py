# SPDX-License-Identifier: BSD-3-Clause
"""The backend of process workers: the parent's ends of their channels, polled together.

::

    hand(batch) --> pack, stow, put --> channel --> worker        (process/worker.py)
    wait()      <-- epoll <-- results, "ready", prints            worker's channel: end of file = it died
                          <-- "born", "died" with the status      control channel of the fork server (forkserver.py)

A death is told (`Died`) when both are known: the end of file, after everything that the worker had sent, and the exit status.
"""

from __future__ import annotations

import contextvars
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from teamster.errors import StartMethodRefused, WorkerStartError
from teamster.machine.memory import oom_kills
from teamster.spine.trace import spans
from teamster.spine.trace.ring import SERIALISE, TRANSFER, WAIT
from teamster.spine.transport.by_value.originals import begin_call
from teamster.spine.transport.channel import Channel, pair
from teamster.spine.transport.pickled import pack
from teamster.spine.transport.polling import WRITABLE
from teamster.spine.workers.backend import Batch, Died, Event, FunctionSpec, WorkerHandle, WorkerInfo
from teamster.spine.workers.death import warn_of_late_ends
from teamster.spine.workers.exceptions import transfer_error
from teamster.spine.workers.library_state import dump, library_part, take
from teamster.spine.workers.process import streams
from teamster.spine.workers.process.environment import changes
from teamster.spine.workers.process.functions import Functions
from teamster.spine.workers.process.handle import ProcessHandle, Scoreboards
from teamster.spine.workers.process.poller import Poller
from teamster.spine.workers.process.resource_tracker import adopt_tracker, descriptor_of_the_tracker
from teamster.spine.workers.process.start import Starter, WorkerSetup
from teamster.spine.workers.scoreboard import LEAVING, PHASE, Scoreboard

_STATUS_PATIENCE_NS = 1_000_000_000  # how long a death waits for its exit status
_LEAVE_S = 10.0  # how long exit handlers of a worker may take after the last task; multiprocessing waits without end


class ProcessBackend(Scoreboards):
    """Process workers of one pool."""

    kind = "process"
    pulls = True
    can_kill = True
    depth = 2
    deepest = 8

    def __init__(self, setup: WorkerSetup, count: int) -> None:
        self.report: Callable[[WorkerHandle, list[Event]], None] = lambda worker, events: None
        self.fail: Callable[[BaseException], None] = lambda error: None
        self._setup, self._count = setup, count
        self._starter = Starter(setup)
        self._poller = Poller()
        self._arming, self._renewing = threading.Lock(), threading.Lock()
        # Who leads changes these without the team's lock, so others walk over a copy. ("dictionary changed size", said a test.)
        self._workers: dict[int, ProcessHandle] = {}  # by descriptor of their channel
        self._tokens: dict[int, ProcessHandle] = {}
        self._lost: list[ProcessHandle] = []  # whose channel has ended, and whose death was not told
        self._watched_control = self._watched_generation = -1
        self._next_token = 0
        self._looked_for = -1  # the function with which the program was last looked at
        self._closing = False
        self._broken_output: Exception | None = None  # the program's stream did not take what a task had printed
        self._functions = Functions()
        self._killed_before = oom_kills()
        self._settled_bytes = (0, 0)  # by pickle, by arena, of workers that are gone

    # --- workers -----------------------------------------------------------------------------------------------------------

    def prepare(self, spec: FunctionSpec, context: contextvars.Context) -> None:
        """Pickle the function, and what of the context can travel."""
        self._functions.prepare(spec, context)

    def start(self, index: int) -> ProcessHandle:
        """Ask for a worker; its channel takes work from now on. One that cannot be started is dead at once."""
        self._start_afresh_if_needed()
        ours, theirs = pair()
        scoreboard = Scoreboard.shared()
        self._next_token += 1
        worker = ProcessHandle(index, self._next_token, Channel(ours, blocking=False), scoreboard)
        worker.channel.furnish()
        worker.told = self._setup.environment
        self._tokens[worker.token] = worker
        spans.welcome(worker.traced)
        try:
            self._starter.start(worker.token, theirs, scoreboard.descriptor)
        except (WorkerStartError, StartMethodRefused) as refusal:
            worker.refusal = refusal
            self._lose(worker)
            return worker
        except BaseException:
            self.release(worker)
            raise
        self._watch_control()
        channel = worker.channel
        self._workers[channel.fileno()] = worker
        self._poller.register(channel.fileno())
        info, worker.surroundings = WorkerInfo(index, "process", self._count), take()
        settings = {**self._setup.settings(), "state": dump(library_part(worker.surroundings))}
        worker.told = self._setup.environment
        self._put(worker, ("setup", settings, info, channel.stow(self._setup.initializer)))
        return worker

    def _lose(self, worker: ProcessHandle) -> None:
        """Nothing more comes from this one, and nothing goes to it."""
        number = worker.channel.fileno()
        if self._workers.pop(number, None) is not None:
            self._poller.unregister(number)
        worker.closed_ns = time.perf_counter_ns()
        self._lost.append(worker)

    def _start_afresh_if_needed(self, user: ProcessHandle | None = None) -> None:
        """Have new workers where the program, a daemon perhaps, has closed our descriptors, or is another user's than they are."""
        with self._renewing:
            whole = self._poller.is_whole() and (user is None or user.channel.is_whole())
            if not whole or not self._starter.is_current():
                self._start_afresh()

    def _start_afresh(self) -> None:
        for worker in list(self._workers.values()):
            worker.killed_for = worker.killed_for or (0, None)
            worker.death = (None, 0)
            self._starter.kill(worker.token)
            self._lose(worker)
            worker.channel.close()
        before, self._poller = self._poller, Poller()
        before.wake()
        before.close()
        self._starter.reconnect()
        self._watch_control()

    def _watch_control(self) -> None:
        if self._watched_generation != self._starter.generation:
            self._watched_generation = self._starter.generation
            self._watched_control = self._starter.control.fileno()
            if self._watched_control >= 0:  # else no other server could be had
                self._poller.register(self._watched_control)

    def kill(self, worker: WorkerHandle) -> None:
        """SIGKILL to the worker and what it started."""
        assert isinstance(worker, ProcessHandle)
        self._starter.kill(worker.token)

    def stop(self, worker: WorkerHandle) -> None:
        """Close the worker's channel: it ends by itself."""
        assert isinstance(worker, ProcessHandle)
        spans.part(worker.traced)  # it is idle; and whoever takes its place is on the timeline in its lane
        worker.channel.shut()

    # --- work --------------------------------------------------------------------------------------------------------------

    def resize(self, count: int) -> None:
        """Tell it to those who start from now on."""
        self._count = count

    def hand(self, worker: WorkerHandle, batch: Batch) -> None:
        """Send a batch, and its function before it when the worker does not have it yet."""
        assert isinstance(worker, ProcessHandle)
        spec: FunctionSpec = batch.job.spec
        if not worker.outstanding and not worker.channel.is_whole():  # the first use after a pause
            self._start_afresh_if_needed(worker)
        ring, began = spans.current_ring(), time.perf_counter_ns()
        if batch.first < 0:  # submitted calls: each begins now
            begin_call()
        try:
            parcel = batch.parcel or pack(batch.items)
        except KeyboardInterrupt:
            raise
        except BaseException as reason:
            raise transfer_error("the argument", reason) from reason
        spans.note(ring, SERIALISE, "pickle arguments", began, parcel.nbytes)
        worker.channel.cork()
        if spec.identity not in worker.known:
            self._tell_news(worker, spec)
            self._put(worker, self._functions.definition(worker, spec))
        batch.job.item_bytes = parcel.nbytes / batch.size
        began = time.perf_counter_ns()
        wire = worker.channel.stow(parcel)
        spans.note(ring, TRANSFER, "copy arguments to shared memory", began, parcel.nbytes)
        self._put(worker, ("batch", spec.identity, batch.number, batch.size, batch.first, batch.careful, wire))

    def _tell_news(self, worker: ProcessHandle, spec: FunctionSpec) -> None:
        """With the first items of a call: what of the program has changed since this worker was told."""
        if spec.identity != self._looked_for:
            self._looked_for = spec.identity
            self._start_afresh_if_needed()
            self._setup.look_again()
        if worker.told is not (now := self._setup.environment):
            worker.told, news = now, changes(worker.told, now)
            tracker = descriptor_of_the_tracker()
            self._put(worker, ("adapt", news), () if tracker is None else (os.dup(tracker),))

    def flush(self) -> None:
        """Send the batches handed since the last time: one system call for all of a worker's."""
        for worker in list(self._workers.values()):
            if worker.channel.corked:
                self._put(worker, None)

    def is_inside(self) -> bool:
        """Never: workers are other processes."""
        return False

    def forget(self, spec: FunctionSpec) -> None:
        """Nobody will use this function again: workers drop it."""
        self._functions.forget(spec)
        for worker in list(self._workers.values()):
            if spec.identity in worker.known:
                worker.known.discard(spec.identity)
                self._put(worker, ("drop", spec.identity))

    def _put(self, worker: ProcessHandle, message: tuple[Any, ...] | None, descriptors: tuple[int, ...] = ()) -> None:
        with self._arming:
            try:
                channel = worker.channel
                if not (channel.put(message, descriptors) if message is not None else channel.uncork()):
                    self._poller.arm(worker.channel.fileno(), writable=True)
            except (OSError, ValueError):
                pass  # it died; the end of file tells, after what it had sent

    # --- events ------------------------------------------------------------------------------------------------------------

    def wait(self, seconds: float | None, *, eager: bool = False) -> list[Event]:
        """Read whatever arrives first."""
        broken, self._broken_output = self._broken_output, None
        if broken is not None and not self._closing:
            raise broken
        events: list[Event] = []
        began = time.perf_counter_ns()
        for descriptor, mask in self._poll(self._patience_s(seconds), eager):
            if descriptor == self._watched_control:
                self._read_control()
            elif (worker := self._workers.get(descriptor)) is not None:
                self._attend(worker, mask, events)
        spans.note(spans.current_ring(), WAIT, "wait for workers", began)
        self._bury(events)
        return events

    def _poll(self, seconds: float | None, eager: bool) -> list[tuple[int, int]]:
        poller = self._poller
        try:
            return poller.poll(seconds, eager=eager)
        except OSError:
            if poller is self._poller and poller.is_whole():
                raise
            self._start_afresh_if_needed()
            return []

    def _patience_s(self, seconds: float | None) -> float | None:
        """How long to wait at most, with those in view of whom something is due without a message."""
        due = [0.0 if worker.death is not None else 0.05 for worker in list(self._lost)]
        if (answer := self._starter.seconds_to_answer()) is not None:
            due.append(answer)
        return min(due, default=None) if seconds is None else min([seconds, *due])

    def wake(self) -> None:
        """Make a `wait` in another thread return."""
        self._poller.wake()

    def _attend(self, worker: ProcessHandle, mask: int, events: list[Event]) -> None:
        if mask & WRITABLE:
            with self._arming:  # another thread may fill the outbox between the flush and the change
                try:
                    if worker.channel.flush():
                        self._poller.arm(worker.channel.fileno(), writable=False)
                except OSError:
                    pass
        if mask & ~WRITABLE:
            self._read(worker, events)

    def _read(self, worker: ProcessHandle, events: list[Event]) -> None:
        try:
            messages = worker.channel.take()
        except BlockingIOError:
            return
        if messages is None:
            self._lose(worker)
            return
        ring, began = spans.current_ring(), time.perf_counter_ns()
        for message in messages:
            if (told := worker.translate(message)) is not None:
                events += told
            else:
                self._broken_output = streams.deliver(message) or self._broken_output
        spans.note(ring, SERIALISE, "unpickle results", began)

    def _read_control(self) -> None:
        control = self._starter.control
        try:
            messages = control.take()
        except BlockingIOError:
            return
        if messages is None:  # the fork server is gone, and its workers with it
            self._poller.unregister(self._watched_control)
            refusal = None if self._closing else self._starter.reconnect()
            for worker in list(self._tokens.values()):
                worker.death = worker.death or (None, 0)
                worker.refusal = worker.refusal or refusal
            self._watch_control()
            return
        for message in messages:
            if message[0] == "serving":
                self._starter.greet()
            elif message[0] == "tracker":
                adopt_tracker(control.attached.pop(0))
            elif told := self._tokens.get(message[1]):
                if message[0] == "born":
                    told.pid = message[2]
                else:
                    told.death = message[2], message[3]

    def _bury(self, events: list[Event]) -> None:
        now = time.perf_counter_ns()
        for worker in list(self._lost):
            if worker.death is None:
                worker.death = self._starter.status(worker.token)
            if worker.death is None and now - worker.closed_ns < _STATUS_PATIENCE_NS:
                continue
            death = worker.describe_end(self._killed_before, self._setup)
            events.extend(self.salvage(worker))
            running = worker.scoreboard.running()
            by_memory = death.by_memory()
            events.append(Died(worker, running and running[:2], death.error, by_memory))

    def release(self, worker: WorkerHandle) -> None:
        """Close its channel and its scoreboard."""
        assert isinstance(worker, ProcessHandle)
        if self._tokens.pop(worker.token, None) is None:
            return
        if worker in self._lost:
            self._lost.remove(worker)
        self._settled_bytes = _sum_up([self._settled_bytes, worker.bytes_moved()])
        spans.part(worker.traced)
        worker.channel.close()
        worker.scoreboard.close()

    def send_segments_home(self) -> None:
        """Tell workers of shared memory that came free, when no batch is on its way that would."""
        for worker in list(self._workers.values()):
            if worker.channel.owes_segments:
                self._put(worker, ("home",))

    def bytes_moved(self) -> tuple[int, int]:
        """Bytes by pickle and by arena, both directions, so far."""
        pickled, arena = _sum_up([self._settled_bytes, *(worker.bytes_moved() for worker in list(self._tokens.values()))])
        return pickled, arena + self._functions.bytes_shared()

    # --- the end -----------------------------------------------------------------------------------------------------------

    def close(self, seconds: float) -> None:
        """End all workers: those without work by themselves within `seconds`, then everything by force.

        Who has left its loop by then and runs exit handlers, or has threads that are no daemons, is given `_LEAVE_S` for that.
        """
        self._closing = True
        self._start_afresh_if_needed()
        for worker in list(self._workers.values()):
            worker.channel.shut()
        self._wait_for_deaths(seconds)
        if seconds and (leaving := self._leaving()):
            self._wait_for_deaths(_LEAVE_S, leaving)
            if late := self._leaving():
                warn_of_late_ends([worker.index for worker in late], _LEAVE_S)
        for token in list(self._tokens):
            self._starter.kill(token)
        self._wait_for_deaths(1.0)
        self._let_go()

    def _leaving(self) -> list[ProcessHandle]:
        return [worker for worker in self._tokens.values() if not worker.closed_ns and worker.scoreboard.words[PHASE] == LEAVING]

    def _wait_for_deaths(self, seconds: float, awaited: list[ProcessHandle] | None = None) -> None:
        """Wait until these are gone, by default all."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if not any(worker.token in self._tokens for worker in awaited or list(self._tokens.values())):
                return
            for event in self.wait(left):
                if isinstance(event, Died):
                    self.release(event.worker)

    def _let_go(self) -> None:
        for worker in list(self._tokens.values()):
            self.release(worker)
        self._starter.close()
        self._functions.close()
        self._workers.clear()
        self._poller.close()


def _sum_up(pairs: list[tuple[int, int]]) -> tuple[int, int]:
    return sum(first for first, _ in pairs), sum(second for _, second in pairs)
