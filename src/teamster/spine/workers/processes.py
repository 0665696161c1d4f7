# SPDX-License-Identifier: BSD-3-Clause
"""The crew of process workers: the parent's ends of their channels, polled together.

::

    hand(batch) --> pack, stow, put --> channel --> worker        (process_main.py)
    wait()      <-- epoll <-- results, "ready", prints            worker's channel: end of file = it died
                          <-- "born", "died" with the status      control channel of the fork server (nursery.py)

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
from teamster.spine.transport.channel import Channel, pair
from teamster.spine.transport.originals import begin_call
from teamster.spine.transport.pickled import pack
from teamster.spine.transport.polling import WRITABLE
from teamster.spine.workers import streams
from teamster.spine.workers.circumstances import changes
from teamster.spine.workers.contract import Batch, Died, Event, Member, Spec, WorkerInfo
from teamster.spine.workers.death import warn_of_late_ends
from teamster.spine.workers.failure import refused
from teamster.spine.workers.functions import Functions
from teamster.spine.workers.poller import Poller
from teamster.spine.workers.process_member import ProcessMember, Slates
from teamster.spine.workers.slate import LEAVING, PHASE, Slate
from teamster.spine.workers.starters import Setup, Starter
from teamster.spine.workers.surroundings import dump, library_part, take
from teamster.spine.workers.tracker import adopt_tracker, descriptor_of_the_tracker

_STATUS_PATIENCE_NS = 1_000_000_000  # how long a death waits for its exit status
_LEAVE_S = 10.0  # how long exit handlers of a worker may take after the last task; multiprocessing waits without end


class ProcessCrew(Slates):
    """Process workers of one pool."""

    kind = "process"
    pulls = True
    can_kill = True
    depth = 2
    deepest = 8

    def __init__(self, setup: Setup, count: int) -> None:
        self.report: Callable[[Member, list[Event]], None] = lambda member, events: None
        self.fail: Callable[[BaseException], None] = lambda error: None
        self._setup, self._count = setup, count
        self._starter = Starter(setup)
        self._poller = Poller()
        self._arming, self._renewing = threading.Lock(), threading.Lock()
        # Who leads changes these without the team's lock, so others walk over a copy. ("dictionary changed size", said a test.)
        self._members: dict[int, ProcessMember] = {}  # by descriptor of their channel
        self._tokens: dict[int, ProcessMember] = {}
        self._lost: list[ProcessMember] = []  # whose channel has ended, and whose death was not told
        self._watched_control = self._watched_generation = -1
        self._next_token = 0
        self._looked_for = -1  # the function with which the program was last looked at
        self._closing = False
        self._broken_output: Exception | None = None  # the program's stream did not take what a task had printed
        self._functions = Functions()
        self._killed_before = oom_kills()
        self._settled_bytes = (0, 0)  # by pickle, by arena, of members that are gone

    # --- members -----------------------------------------------------------------------------------------------------------

    def prepare(self, spec: Spec, context: contextvars.Context) -> None:
        """Pickle the function, and what of the context can travel."""
        self._functions.prepare(spec, context)

    def enlist(self, index: int) -> ProcessMember:
        """Ask for a worker; its channel takes work from now on. One that cannot be started is dead at once."""
        self._start_afresh_if_needed()
        ours, theirs = pair()
        slate = Slate.shared()
        self._next_token += 1
        member = ProcessMember(index, self._next_token, Channel(ours, blocking=False), slate)
        member.channel.furnish()
        member.told = self._setup.circumstances
        self._tokens[member.token] = member
        spans.welcome(member.traced)
        try:
            self._starter.start(member.token, theirs, slate.descriptor)
        except (WorkerStartError, StartMethodRefused) as refusal:
            member.refusal = refusal
            self._lose(member)
            return member
        except BaseException:
            self.release(member)
            raise
        self._watch_control()
        channel = member.channel
        self._members[channel.fileno()] = member
        self._poller.register(channel.fileno())
        info, member.surroundings = WorkerInfo(index, "process", self._count), take()
        settings = {**self._setup.settings(), "state": dump(library_part(member.surroundings))}
        member.told = self._setup.circumstances
        self._put(member, ("setup", settings, info, channel.stow(self._setup.initializer)))
        return member

    def _lose(self, member: ProcessMember) -> None:
        """Nothing more comes from this one, and nothing goes to it."""
        number = member.channel.fileno()
        if self._members.pop(number, None) is not None:
            self._poller.unregister(number)
        member.closed_ns = time.perf_counter_ns()
        self._lost.append(member)

    def _start_afresh_if_needed(self, user: ProcessMember | None = None) -> None:
        """Have new workers where the program, a daemon perhaps, has closed our descriptors, or is another user's than they are."""
        with self._renewing:
            whole = self._poller.is_whole() and (user is None or user.channel.is_whole())
            if not whole or not self._starter.is_current():
                self._start_afresh()

    def _start_afresh(self) -> None:
        for member in list(self._members.values()):
            member.doomed = member.doomed or (0, None)
            member.death = (None, 0)
            self._starter.kill(member.token)
            self._lose(member)
            member.channel.close()
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

    def kill(self, member: Member) -> None:
        """SIGKILL to the worker and what it started."""
        assert isinstance(member, ProcessMember)
        self._starter.kill(member.token)

    def dismiss(self, member: Member) -> None:
        """Close the worker's channel: it ends by itself."""
        assert isinstance(member, ProcessMember)
        spans.part(member.traced)  # it is idle; and whoever takes its place is on the timeline in its lane
        member.channel.shut()

    # --- work --------------------------------------------------------------------------------------------------------------

    def resize(self, count: int) -> None:
        """Tell it to those who start from now on."""
        self._count = count

    def hand(self, member: Member, batch: Batch) -> None:
        """Send a batch, and its function before it when the worker does not have it yet."""
        assert isinstance(member, ProcessMember)
        spec: Spec = batch.job.spec
        if not member.outstanding and not member.channel.is_whole():  # the first use after a pause
            self._start_afresh_if_needed(member)
        ring, began = spans.current_ring(), time.perf_counter_ns()
        if batch.first < 0:  # submitted calls: each begins now
            begin_call()
        try:
            parcel = batch.parcel or pack(batch.items)
        except KeyboardInterrupt:
            raise
        except BaseException as reason:
            raise refused("the argument", reason) from reason
        spans.note(ring, SERIALISE, "pickle arguments", began, parcel.nbytes)
        member.channel.cork()
        if spec.identity not in member.known:
            self._tell_news(member, spec)
            self._put(member, self._functions.lesson(member, spec))
        batch.job.item_bytes = parcel.nbytes / batch.size
        began = time.perf_counter_ns()
        wire = member.channel.stow(parcel)
        spans.note(ring, TRANSFER, "copy arguments to shared memory", began, parcel.nbytes)
        self._put(member, ("batch", spec.identity, batch.number, batch.size, batch.first, batch.careful, wire))

    def _tell_news(self, member: ProcessMember, spec: Spec) -> None:
        """With the first items of a call: what of the program has changed since this worker was told."""
        if spec.identity != self._looked_for:
            self._looked_for = spec.identity
            self._start_afresh_if_needed()
            self._setup.look_again()
        if member.told is not (now := self._setup.circumstances):
            member.told, news = now, changes(member.told, now)
            tracker = descriptor_of_the_tracker()
            self._put(member, ("adapt", news), () if tracker is None else (os.dup(tracker),))

    def flush(self) -> None:
        """Send the batches handed since the last time: one system call for all of a member's."""
        for member in list(self._members.values()):
            if member.channel.corked:
                self._put(member, None)

    def is_inside(self) -> bool:
        """Never: members are other processes."""
        return False

    def forget(self, spec: Spec) -> None:
        """Nobody will use this function again: workers drop it."""
        self._functions.forget(spec)
        for member in list(self._members.values()):
            if spec.identity in member.known:
                member.known.discard(spec.identity)
                self._put(member, ("drop", spec.identity))

    def _put(self, member: ProcessMember, message: tuple[Any, ...] | None, descriptors: tuple[int, ...] = ()) -> None:
        with self._arming:
            try:
                channel = member.channel
                if not (channel.put(message, descriptors) if message is not None else channel.uncork()):
                    self._poller.arm(member.channel.fileno(), writable=True)
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
            elif (member := self._members.get(descriptor)) is not None:
                self._attend(member, mask, events)
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
        due = [0.0 if member.death is not None else 0.05 for member in list(self._lost)]
        if (answer := self._starter.seconds_to_answer()) is not None:
            due.append(answer)
        return min(due, default=None) if seconds is None else min([seconds, *due])

    def wake(self) -> None:
        """Make a `wait` in another thread return."""
        self._poller.wake()

    def _attend(self, member: ProcessMember, mask: int, events: list[Event]) -> None:
        if mask & WRITABLE:
            with self._arming:  # another thread may fill the outbox between the flush and the change
                try:
                    if member.channel.flush():
                        self._poller.arm(member.channel.fileno(), writable=False)
                except OSError:
                    pass
        if mask & ~WRITABLE:
            self._read(member, events)

    def _read(self, member: ProcessMember, events: list[Event]) -> None:
        try:
            messages = member.channel.take()
        except BlockingIOError:
            return
        if messages is None:
            self._lose(member)
            return
        ring, began = spans.current_ring(), time.perf_counter_ns()
        for message in messages:
            if (told := member.translate(message)) is not None:
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
            for member in list(self._tokens.values()):
                member.death = member.death or (None, 0)
                member.refusal = member.refusal or refusal
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
        for member in list(self._lost):
            if member.death is None:
                member.death = self._starter.status(member.token)
            if member.death is None and now - member.closed_ns < _STATUS_PATIENCE_NS:
                continue
            death = member.describe_end(self._killed_before, self._setup)
            events.extend(self.rescue(member))
            running = member.slate.running()
            by_memory = death.by_memory()
            events.append(Died(member, running and running[:2], death.error, by_memory))

    def release(self, member: Member) -> None:
        """Close its channel and its slate."""
        assert isinstance(member, ProcessMember)
        if self._tokens.pop(member.token, None) is None:
            return
        if member in self._lost:
            self._lost.remove(member)
        self._settled_bytes = _sum_up([self._settled_bytes, member.bytes_moved()])
        spans.part(member.traced)
        member.channel.close()
        member.slate.close()

    def send_segments_home(self) -> None:
        """Tell workers of shared memory that came free, when no batch is on its way that would."""
        for member in list(self._members.values()):
            if member.channel.owes_segments:
                self._put(member, ("home",))

    def bytes_moved(self) -> tuple[int, int]:
        """Bytes by pickle and by arena, both directions, so far."""
        pickled, arena = _sum_up([self._settled_bytes, *(member.bytes_moved() for member in list(self._tokens.values()))])
        return pickled, arena + self._functions.bytes_shared()

    # --- the end -----------------------------------------------------------------------------------------------------------

    def close(self, seconds: float) -> None:
        """End all workers: those without work by themselves within `seconds`, then everything by force.

        Who has left its loop by then and runs exit handlers, or has threads that are no daemons, is given `_LEAVE_S` for that.
        """
        self._closing = True
        self._start_afresh_if_needed()
        for member in list(self._members.values()):
            member.channel.shut()
        self._wait_for_deaths(seconds)
        if seconds and (leaving := self._leaving()):
            self._wait_for_deaths(_LEAVE_S, leaving)
            if late := self._leaving():
                warn_of_late_ends([member.index for member in late], _LEAVE_S)
        for token in list(self._tokens):
            self._starter.kill(token)
        self._wait_for_deaths(1.0)
        self._let_go()

    def _leaving(self) -> list[ProcessMember]:
        return [member for member in self._tokens.values() if not member.closed_ns and member.slate.words[PHASE] == LEAVING]

    def _wait_for_deaths(self, seconds: float, awaited: list[ProcessMember] | None = None) -> None:
        """Wait until these are gone, by default all."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if not any(member.token in self._tokens for member in awaited or list(self._tokens.values())):
                return
            for event in self.wait(left):
                if isinstance(event, Died):
                    self.release(event.member)

    def _let_go(self) -> None:
        for member in list(self._tokens.values()):
            self.release(member)
        self._starter.close()
        self._functions.close()
        self._members.clear()
        self._poller.close()


def _sum_up(pairs: list[tuple[int, int]]) -> tuple[int, int]:
    return sum(first for first, _ in pairs), sum(second for _, second in pairs)
