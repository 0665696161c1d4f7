# SPDX-License-Identifier: BSD-3-Clause
"""The crew of process workers: the parent's ends of their channels, polled together.

::

    hand(batch) --> pack, stow, put --> channel --> worker        (process_main.py)
    wait()      <-- epoll <-- results, "ready", prints            worker's channel: end of file = it died
                          <-- "born", "died" with the status      control channel of the fork server (nursery.py)

A death is told (`Died`) when both are known: the end of file, after everything that the worker had sent, and the exit status.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from teamster.machine.memory import oom_kills
from teamster.spine.trace import spans
from teamster.spine.trace.ring import SERIALISE, TRANSFER, WAIT
from teamster.spine.transport.channel import SILENTLY, SPIN_NS, Channel, pair
from teamster.spine.transport.pickled import pack
from teamster.spine.workers import streams
from teamster.spine.workers.contract import (
    Batch,
    Died,
    Event,
    Finished,
    Member,
    Ready,
    Spec,
    Unreadable,
    WorkerInfo,
)
from teamster.spine.workers.death import Death
from teamster.spine.workers.failure import rebuild, refused
from teamster.spine.workers.functions import Functions
from teamster.spine.workers.process_member import ProcessMember
from teamster.spine.workers.results import unpack_results
from teamster.spine.workers.slate import LIMIT, LOG_END, NO_LIMIT, Slate
from teamster.spine.workers.starters import Setup, Starter

_STATUS_PATIENCE_NS = 1_000_000_000  # how long a death waits for its exit status


class ProcessCrew:
    """Process workers of one pool."""

    kind = "process"
    pulls = True
    can_kill = True
    depth = 2
    deepest = 8

    def __init__(self, setup: Setup, count: int) -> None:
        self.report: Callable[[Member, list[Event]], None] = lambda member, events: None
        self._setup = setup
        self._count = count
        self._starter = Starter(setup.start_method)
        self._epoll = select.epoll()
        self._arming = threading.Lock()
        # Whoever leads changes these without the team's lock, so everybody else walks over a copy. (A test ended in "dictionary
        # changed size during iteration".)
        self._members: dict[int, ProcessMember] = {}  # by descriptor of their channel
        self._tokens: dict[int, ProcessMember] = {}
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_write.setblocking(False)
        self._wake_read.setblocking(False)
        self._epoll.register(self._wake_read.fileno(), select.EPOLLIN)
        self._watched_control = self._watched_generation = -1
        self._next_token = 0
        self._closing = False
        self._functions = Functions()
        self._killed_before = oom_kills()
        self._settled_bytes = [0, 0]  # by pickle, by arena, of members that are gone

    # --- members -----------------------------------------------------------------------------------------------------------

    def prepare(self, spec: Spec, context: contextvars.Context) -> None:
        """Pickle the function, and what of the context can travel."""
        self._functions.prepare(spec, context)

    def enlist(self, index: int) -> ProcessMember:
        """Ask for a worker; its channel takes work from now on."""
        ours, theirs = pair()
        slate = Slate.shared()
        self._next_token += 1
        channel = Channel(ours, blocking=False)
        channel.furnish()
        member = ProcessMember(index, self._next_token, channel, slate)
        self._tokens[member.token] = member
        spans.welcome(member.traced)
        try:
            self._starter.start(member.token, theirs, slate.descriptor)
        except BaseException:
            del self._tokens[member.token]
            spans.part(member.traced)
            channel.close()
            slate.close()
            raise
        self._watch_control()
        self._members[channel.fileno()] = member
        self._epoll.register(channel.fileno(), select.EPOLLIN)
        info = WorkerInfo(index, "process", self._count)
        self._put(member, ("setup", self._setup.settings(), info, channel.stow(self._setup.initializer)))
        return member

    def _watch_control(self) -> None:
        if self._watched_generation != self._starter.generation:
            self._watched_generation = self._starter.generation
            self._watched_control = self._starter.control.fileno()
            self._epoll.register(self._watched_control, select.EPOLLIN)

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
        ring, began = spans.current_ring(), time.perf_counter_ns()
        try:
            parcel = batch.parcel or pack(batch.items)
        except KeyboardInterrupt:
            raise
        except BaseException as reason:
            raise refused("the argument", reason) from reason
        spans.note(ring, SERIALISE, "pickle arguments", began, parcel.nbytes)
        member.channel.cork()
        if spec.identity not in member.known:
            self._put(member, self._functions.lesson(member, spec))
        batch.job.item_bytes = parcel.nbytes / batch.size
        began = time.perf_counter_ns()
        wire = member.channel.stow(parcel)
        spans.note(ring, TRANSFER, "copy arguments to shared memory", began, parcel.nbytes)
        index = max(batch.first, 0)
        self._put(member, ("batch", spec.identity, batch.number, batch.size, index, batch.careful, wire))

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

    def _put(self, member: ProcessMember, message: tuple[Any, ...] | None) -> None:
        with self._arming:
            try:
                channel = member.channel
                if not (channel.put(message) if message is not None else channel.uncork()):
                    self._epoll.modify(member.channel.fileno(), select.EPOLLIN | select.EPOLLOUT)
            except (OSError, ValueError):
                pass  # it died; the end of file tells, after what it had sent

    def running(self, member: Member) -> tuple[int, int, int] | None:
        """What the worker's slate says."""
        assert isinstance(member, ProcessMember)
        return member.slate.running()

    def frontier(self, member: Member) -> int:
        """What the slate says."""
        assert isinstance(member, ProcessMember)
        return member.slate.frontier()

    def recall(self, member: Member, number: int) -> None:
        """Set the limit on the worker's slate."""
        assert isinstance(member, ProcessMember)
        member.slate.words[LIMIT] = number

    def resume(self, member: Member) -> None:
        """Lift the limit."""
        assert isinstance(member, ProcessMember)
        member.slate.words[LIMIT] = NO_LIMIT

    def has_unsent(self, member: Member) -> bool:
        """Whether the worker's log holds what was not read from it before."""
        assert isinstance(member, ProcessMember)
        return member.slate.words[LOG_END] not in (0, member.rescued_end)

    def rescue(self, member: Member) -> list[Event]:
        """What the worker's log holds."""
        assert isinstance(member, ProcessMember)
        member.rescued_end = member.slate.words[LOG_END]
        records = member.slate.read_log(alive=not member.closed_ns)
        return [event for record in records for event in unpack_results(member, *record, [])]

    # --- events ------------------------------------------------------------------------------------------------------------

    def wait(self, seconds: float | None, *, eager: bool = False) -> list[Event]:
        """Read whatever arrives first."""
        events: list[Event] = []
        if any(member.closed_ns for member in list(self._tokens.values())):
            seconds = min(0.05, 0.05 if seconds is None else seconds)
        for descriptor, mask in self._poll(seconds, eager):
            member = self._members.get(descriptor)
            if member is not None:
                self._attend(member, mask, events)
            elif descriptor == self._watched_control:
                self._read_control()
            elif descriptor == self._wake_read.fileno():
                self._drain_wake()
        self._bury(events)
        return events

    def _poll(self, seconds: float | None, eager: bool) -> list[tuple[int, int]]:
        """Poll, at first without sleeping: a processor that went to sleep takes some 50 us to wake up."""
        began = time.perf_counter_ns()
        until = began + (SPIN_NS if eager and seconds != 0 else 0)
        while time.perf_counter_ns() < until:
            if ready := self._epoll.poll(0):
                return ready
            os.sched_yield()  # whoever has work goes first
        ready = self._epoll.poll(seconds)
        spans.note(spans.current_ring(), WAIT, "wait for workers", began)
        return ready

    def _drain_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_read.recv(4096)

    def wake(self) -> None:
        """Make a `wait` in another thread return."""
        with contextlib.suppress(OSError):
            self._wake_write.send(b"\0", SILENTLY)

    def _attend(self, member: ProcessMember, mask: int, events: list[Event]) -> None:
        if mask & select.EPOLLOUT:
            with self._arming:  # another thread may fill the outbox between the flush and the change
                try:
                    if member.channel.flush():
                        self._epoll.modify(member.channel.fileno(), select.EPOLLIN)
                except OSError:
                    pass
        if mask & ~select.EPOLLOUT:
            self._read(member, events)

    def _read(self, member: ProcessMember, events: list[Event]) -> None:
        try:
            messages = member.channel.take()
        except BlockingIOError:
            return
        if messages is None:
            member.closed_ns = time.perf_counter_ns()
            self._epoll.unregister(member.channel.fileno())
            del self._members[member.channel.fileno()]
            return
        ring, began = spans.current_ring(), time.perf_counter_ns()
        for message in messages:
            self._translate(member, message, events)
        spans.note(ring, SERIALISE, "unpickle results", began)

    def _translate(self, member: ProcessMember, message: tuple[Any, ...], events: list[Event]) -> None:
        kind = message[0]
        if kind == "results":
            _, records, finished = message
            for first, count, failed, wire in records:
                events += unpack_results(member, first, count, failed, *member.channel.parts(wire))
            events.extend(Finished(member, *batch) for batch in finished)
        elif kind == "ready":
            events.append(Ready(member, None if message[1] is None else rebuild(message[1])))
        elif kind == "unreadable":
            events.append(Unreadable(member, message[1], rebuild(message[2])))
        else:
            streams.deliver(message)

    def _read_control(self) -> None:
        control = self._starter.control
        try:
            messages = control.take()
        except BlockingIOError:
            return
        if messages is None:  # the fork server is gone, and its workers with it
            self._epoll.unregister(self._watched_control)
            for member in list(self._tokens.values()):
                member.death = member.death or (None, 0)
            if not self._closing:
                self._starter.reconnect()
                self._watch_control()
            return
        for message in messages:
            told = self._tokens.get(message[1])
            if told is None:
                continue
            if message[0] == "born":
                told.pid = message[2]
            elif message[0] == "died":
                told.death = message[2], message[3]

    def _bury(self, events: list[Event]) -> None:
        now = time.perf_counter_ns()
        for member in [member for member in list(self._tokens.values()) if member.closed_ns]:
            if member.death is None:
                member.death = self._starter.status(member.token)
            if member.death is None and now - member.closed_ns < _STATUS_PATIENCE_NS:
                continue
            status, peak_bytes = member.death or (None, 0)
            death = Death(member.index, status, peak_bytes, member.slate.last_words(), self._killed_before)
            events.extend(self.rescue(member))
            running = member.slate.running()
            by_memory = death.by_memory()
            events.append(Died(member, running and running[:2], death.error, by_memory))

    def release(self, member: Member) -> None:
        """Close its channel and its slate."""
        assert isinstance(member, ProcessMember)
        if self._tokens.pop(member.token, None) is None:
            return
        self._settled_bytes[0] += member.channel.bytes_sent + member.channel.bytes_received
        self._settled_bytes[1] += member.channel.bytes_moved
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
        pickled, arena = self._settled_bytes
        for member in list(self._tokens.values()):
            pickled += member.channel.bytes_sent + member.channel.bytes_received
            arena += member.channel.bytes_moved
        return pickled, arena + self._functions.bytes_shared()

    # --- the end -----------------------------------------------------------------------------------------------------------

    def close(self, seconds: float) -> None:
        """End all workers: those without work by themselves within `seconds`, then everything by force."""
        self._closing = True
        deadline = time.monotonic() + seconds
        for member in list(self._members.values()):
            member.channel.shut()
        while self._tokens and time.monotonic() < deadline:
            self._wait_for_deaths(max(0.0, deadline - time.monotonic()))
        for token in list(self._tokens):
            self._starter.kill(token)
        deadline = time.monotonic() + 1.0
        while self._tokens and time.monotonic() < deadline:
            self._wait_for_deaths(0.05)
        self._let_go()

    def _wait_for_deaths(self, seconds: float) -> None:
        for event in self.wait(seconds):
            if isinstance(event, Died):
                self.release(event.member)

    def _let_go(self) -> None:
        for member in list(self._tokens.values()):
            self.release(member)
        self._starter.close()
        self._functions.close()
        self._members.clear()
        self._epoll.close()
        self._wake_read.close()
        self._wake_write.close()
