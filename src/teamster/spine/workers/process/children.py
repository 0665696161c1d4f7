# SPDX-License-Identifier: BSD-3-Clause
"""Child processes and their channels: started, watched, explained and ended. Knows no batch.

::

    start(entry) --> fork server --> child: entry(...)     the parent names what it does
    put(message) --> channel ------> child                 with shared memory, and a scoreboard
    wait()       <-- epoll <-- messages, prints            the channel; its end of file = a death
                           <-- "born", "died" with status  control channel of the fork server

A death is told when both are known: the end of file, after everything that the child had sent, and
the exit status. What is asked for while the fork server is gone, or the program has closed our
descriptors, begins afresh with another server.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from teamster.errors import StartMethodRefused, WorkerStartError
from teamster.machine.memory import oom_kills
from teamster.spine.trace import spans
from teamster.spine.transport.polling import WRITABLE
from teamster.spine.transport.sockets import pair
from teamster.spine.workers.death import Death, warn_of_late_ends
from teamster.spine.workers.library_state import dump, library_part, take
from teamster.spine.workers.process import streams
from teamster.spine.workers.process.child import Child, Told
from teamster.spine.workers.process.environment import changes
from teamster.spine.workers.process.poller import Poller
from teamster.spine.workers.process.resource_tracker import descriptor_of_the_tracker
from teamster.spine.workers.process.start import ChildSetup, Entry, Starter

_STATUS_PATIENCE_NS = 1_000_000_000  # how long a death waits for its exit status
# How long exit handlers of a child may take after the last task; multiprocessing waits without end
_LEAVE_S = 10.0


class Children:
    """The child processes of one pool, or of one kind of spawned process.

    Args:
        setup: how they are started, and what they are told of the program.
        on_given_up: told of each that is ended since our descriptors were closed, or the program is
            another user's now.
        on_broken_output: told what the program's stream has raised that did not take a child's
            print; else `wait` raises it.
    """

    def __init__(
        self,
        setup: ChildSetup,
        on_given_up: Callable[[Child], object] = bool,
        on_broken_output: Callable[[Exception], object] | None = None,
    ) -> None:
        self._setup = setup
        self._on_given_up = on_given_up
        self._on_broken_output = on_broken_output
        self._starter = Starter(setup)
        self._poller = Poller()
        self._arming, self._renewing = threading.Lock(), threading.Lock()
        # The thread that waits changes these without the lock of one that starts: walk over a copy
        self._by_descriptor: dict[int, Child] = {}  # of their channel
        self._by_token: dict[int, Child] = {}
        self._lost: list[Child] = []  # their channel has ended, and their death was not told
        self._paused: set[Child] = set()  # nothing is read from them
        self._watched_control = self._watched_generation = -1
        self._next_token = 0
        self._closing = False
        self._broken_output: Exception | None = None  # raised by the program's stream for a print
        self._killed_before = oom_kills()
        self._settled_bytes = (0, 0)  # by pickle, by arena, of children that are gone

    # --- their start ------------------------------------------------------------------------------

    def start(self, index: int, label: str, entry: Entry, told: tuple[Any, ...] = ()) -> Child:
        """Start one; its channel takes messages from now on. What cannot be started is dead.

        Args:
            index: its number, counted from 0, of those beside it.
            label: what its lane on a timeline is called.
            entry: what it does.
            told: arguments for the entry point; plain values.
        """
        self.start_afresh_if_needed()
        ours, theirs = pair()
        self._next_token += 1
        child = Child(index, label, self._next_token, ours)
        child.told = self._setup.environment
        self._by_token[child.token] = child
        spans.welcome(child.traced)
        try:
            self._starter.start(child.token, theirs, child.scoreboard.descriptor, entry)
        except (WorkerStartError, StartMethodRefused) as refusal:
            child.refusal = refusal
            self._lose(child)
            return child
        except BaseException:
            self.release(child)
            raise
        try:
            self._watch_control()
            self._by_descriptor[child.channel.fileno()] = child
            self._poller.register(child.channel.fileno())
            child.state = take()
            settings = {**self._setup.settings(), "state": dump(library_part(child.state))}
            child.told = self._setup.environment
            self.put(
                child,
                ("setup", settings, index, entry.name, told, entry.stow(child.channel)),
            )
        except BaseException:  # Ctrl-C: it would never be told what to do
            self._starter.kill(child.token)
            raise
        return child

    def _lose(self, child: Child) -> None:
        """Nothing more comes from this one, and nothing goes to it."""
        number = child.channel.fileno()
        with self._arming:  # another thread may be about to have it waited for otherwise
            if self._by_descriptor.pop(number, None) is not None:
                self._poller.unregister(number)
            child.closed_ns = time.perf_counter_ns()
            self._paused.discard(child)
        self._lost.append(child)

    def start_afresh_if_needed(self, user: Child | None = None) -> None:
        """Have new ones where the program has closed our descriptors, or has changed its user."""
        with self._renewing:
            whole = self._poller.is_whole() and (user is None or user.channel.is_whole())
            if not whole or not self._starter.is_current():
                self._start_afresh()

    def _start_afresh(self) -> None:
        for child in list(self._by_descriptor.values()):
            child.status = (None, 0)
            self._on_given_up(child)
            self._starter.kill(child.token)
            self._lose(child)
            child.channel.close()
        before, self._poller = self._poller, Poller()
        before.wake()
        before.close()
        self._starter.renew()
        self._watch_control()

    def _watch_control(self) -> None:
        if self._watched_generation != self._starter.generation:
            self._watched_generation = self._starter.generation
            self._watched_control = self._starter.control.fileno()
            if self._watched_control >= 0:  # else no other server could be had
                self._poller.register(self._watched_control)

    # --- what they are told -----------------------------------------------------------------------

    def look_again(self) -> None:
        """What starts from now on, or is told the news, is told of the program as it is now."""
        self.start_afresh_if_needed()
        self._setup.look_again()

    def tell_news(self, child: Child) -> None:
        """After `look_again`: tell of what has changed in the program since this one was told."""
        if child.told is not (now := self._setup.environment):
            child.told, news = now, changes(child.told, now)
            tracker = descriptor_of_the_tracker()
            self.put(child, ("adapt", news), () if tracker is None else (os.dup(tracker),))

    def put(
        self, child: Child, message: tuple[Any, ...] | None, descriptors: tuple[int, ...] = ()
    ) -> bool:
        """Send a message, or (None) what was held back.

        Returns:
            Whether all of it is on its way; else the rest follows while a thread waits.
        """
        with self._arming:
            try:
                channel = child.channel
                sent = (
                    channel.put(message, descriptors) if message is not None else channel.uncork()
                )
                if not sent:
                    self._arm(child, writable=True)
                return sent
            except (OSError, ValueError):
                return True  # it died; the end of file tells, after what it had sent

    def pause(self, child: Child, on: bool) -> None:
        """Read nothing of this one while that is `on`; it waits with what it sends."""
        with self._arming:
            if child.closed_ns or (child in self._paused) is on:
                return
            (self._paused.add if on else self._paused.discard)(child)
            # Writable, whether anything is held back or not: only `_attend` tells that it was sent
            self._arm(child, writable=True)

    def _arm(self, child: Child, *, writable: bool) -> None:
        readable = child not in self._paused
        self._poller.arm(child.channel.fileno(), readable=readable, writable=writable)

    def flush(self) -> None:
        """Send what was held back (`Channel.cork`): one system call for all of a child's."""
        for child in list(self._by_descriptor.values()):
            if child.channel.corked:
                self.put(child, None)

    # --- what they tell ---------------------------------------------------------------------------

    def wait(self, seconds: float | None, *, eager: bool = False) -> list[Told]:
        """Read whatever arrives first: messages, each with its child, and deaths."""
        broken, self._broken_output = self._broken_output, None
        if broken is not None and not self._closing:
            if self._on_broken_output is None:
                raise broken
            self._on_broken_output(broken)
        told: list[Told] = []
        for descriptor, mask in self._poll(self._patience_s(seconds), eager):
            if descriptor == self._watched_control:
                self._read_control()
            elif (child := self._by_descriptor.get(descriptor)) is not None:
                self._attend(child, mask, told)
        self._tell_deaths(told)
        return told

    def _poll(self, seconds: float | None, eager: bool) -> list[tuple[int, int]]:
        poller = self._poller
        try:
            return poller.poll(seconds, eager=eager)
        except OSError:
            if poller is self._poller and poller.is_whole():
                raise
            self.start_afresh_if_needed()
            return []

    def _patience_s(self, seconds: float | None) -> float | None:
        """How long to wait at most, as something may be due of which no message tells."""
        due = [0.0 if child.status is not None else 0.05 for child in list(self._lost)]
        if (answer := self._starter.seconds_to_answer()) is not None:
            due.append(answer)
        return min(due, default=None) if seconds is None else min([seconds, *due])

    def wake(self) -> None:
        """Make a `wait` in another thread return."""
        self._poller.wake()

    def _attend(self, child: Child, mask: int, told: list[Told]) -> None:
        if mask & WRITABLE:
            with self._arming:  # another thread may fill the outbox between flush and change
                try:
                    if child.channel.flush():
                        self._arm(child, writable=False)
                        told.append((child, ("sent",)))
                except OSError:
                    pass
        if mask & ~WRITABLE:
            self._read(child, told)

    def _read(self, child: Child, told: list[Told]) -> None:
        try:
            messages = child.channel.take()
        except BlockingIOError:
            return
        if messages is None:
            self._lose(child)
            return
        for message in messages:
            if message[0] in streams.KINDS:
                self._broken_output = streams.deliver(message) or self._broken_output
            else:
                told.append((child, message))

    def _read_control(self) -> None:
        if self._starter.hear(self._by_token):
            return
        # The fork server is gone, and its children with it
        self._poller.unregister(self._watched_control)
        refusal = None if self._closing else self._starter.reconnect()
        for child in list(self._by_token.values()):
            child.status = child.status or (None, 0)
            child.refusal = child.refusal or refusal
        self._watch_control()

    # --- their end --------------------------------------------------------------------------------

    def _tell_deaths(self, told: list[Told]) -> None:
        now = time.perf_counter_ns()
        for child in list(self._lost):
            if child.status is None:
                child.status = self._starter.status(child.token)
            late = child.status is None and now - child.closed_ns >= _STATUS_PATIENCE_NS
            if late and not child.hung_up:
                # It lives, and has closed its end: nothing can be had of it any more
                child.hung_up, child.closed_ns = True, now
                self._starter.kill(child.token)
            elif late or child.status is not None:
                forked = self._setup.start_method == "fork"
                told.append((child, child.describe_end(self._killed_before, forked=forked)))

    def signal(self, child: Child, number: int) -> None:
        """Send a signal to the process itself, if it still lives."""
        self._starter.signal(child.token, number)

    def kill(self, child: Child) -> None:
        """SIGKILL to the process and what it started."""
        self._starter.kill(child.token)

    def shut(self, child: Child) -> None:
        """Close its channel: it ends by itself."""
        spans.part(child.traced)  # it is idle; the one in its place has its lane of the timeline
        child.channel.shut()

    def release(self, child: Child) -> None:
        """Close its channel and its scoreboard; called when its death was handled."""
        if self._by_token.pop(child.token, None) is None:
            return
        if child in self._lost:
            self._lost.remove(child)
        self._settled_bytes = _sum_up([self._settled_bytes, child.bytes_moved()])
        spans.part(child.traced)
        child.channel.close()
        child.scoreboard.close()

    def bytes_moved(self) -> tuple[int, int]:
        """Bytes by pickle and by arena, both directions, so far."""
        return _sum_up(
            [self._settled_bytes, *(child.bytes_moved() for child in list(self._by_token.values()))]
        )

    def close(self, seconds: float) -> None:
        """End all: those that are idle by themselves within `seconds`, then everything by force.

        What has left its entry point and runs exit handlers, or has threads that are no daemons, is
        given `_LEAVE_S` for that.
        """
        self._closing = True
        self.start_afresh_if_needed()
        for child in list(self._by_descriptor.values()):
            child.channel.shut()
        self._wait_for_deaths(seconds)
        if seconds and (leaving := self._leaving()):
            self._wait_for_deaths(_LEAVE_S, leaving)
            if late := self._leaving():
                warn_of_late_ends([child.index for child in late], _LEAVE_S)
        for token in list(self._by_token):
            self._starter.kill(token)
        self._wait_for_deaths(1.0)
        self._let_go()

    def _leaving(self) -> list[Child]:
        return [child for child in self._by_token.values() if child.is_leaving()]

    def _wait_for_deaths(self, seconds: float, awaited: Iterable[Child] | None = None) -> None:
        """Wait until these are gone, by default all."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if not any(
                child.token in self._by_token for child in awaited or list(self._by_token.values())
            ):
                return
            for child, told in self.wait(left):
                if isinstance(told, Death):
                    self.release(child)

    def _let_go(self) -> None:
        for child in list(self._by_token.values()):
            self.release(child)
        self._starter.close()
        self._by_descriptor.clear()
        self._poller.close()


def _sum_up(pairs: list[tuple[int, int]]) -> tuple[int, int]:
    return sum(first for first, _ in pairs), sum(second for _, second in pairs)
