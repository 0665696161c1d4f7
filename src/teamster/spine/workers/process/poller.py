# SPDX-License-Identifier: BSD-3-Clause
"""Waiting for many descriptors at once; another thread can end or change the wait meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
import time
from typing import Protocol

from teamster.machine.descriptors import OwnedSocket, keep_for_ever
from teamster.spine.transport.channel import SPIN_NS
from teamster.spine.transport.polling import READABLE, WRITABLE, make_poll
from teamster.spine.transport.sockets import SILENTLY

# A wait that began before the program closed our descriptors cannot be ended any more
_LOOK_S = 1.0


class _Set(Protocol):
    """Descriptors and what is waited for, as epoll has them."""

    def register(self, descriptor: int, mask: int) -> None:
        """Add one."""

    def modify(self, descriptor: int, mask: int) -> None:
        """Wait for something else."""

    def unregister(self, descriptor: int) -> None:
        """Take one out."""

    def poll(self, seconds: float | None) -> list[tuple[int, int]]:
        """Wait for one to be ready."""

    def close(self) -> None:
        """Let go."""


class Poller:
    """The descriptors of one backend."""

    def __init__(self) -> None:
        self._wake_read, self._wake_write = map(OwnedSocket.of, socket.socketpair())
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._set: _Set = select.epoll() if hasattr(select, "epoll") else _PolledSet(self)
        self._set.register(self._wake_read.fileno(), READABLE)

    def register(self, descriptor: int) -> None:
        """Look at one more."""
        self._set.register(descriptor, READABLE)

    def unregister(self, descriptor: int) -> None:
        """Look at it no more; nothing happens where it was closed."""
        with contextlib.suppress(OSError, ValueError):
            self._set.unregister(descriptor)

    def arm(self, descriptor: int, *, readable: bool = True, writable: bool = False) -> None:
        """Say whether it is looked at until it can be read, or written."""
        self._set.modify(descriptor, (READABLE if readable else 0) | (WRITABLE if writable else 0))

    def poll(self, seconds: float | None, *, eager: bool) -> list[tuple[int, int]]:
        """Descriptors and what they are ready for.

        It looks without sleeping at first: a processor that sleeps takes 50 us to wake up. It
        returns, with nothing, after `seconds`, and without a number after some time, too.
        """
        until = time.perf_counter_ns() + SPIN_NS if eager and seconds != 0 else 0
        while time.perf_counter_ns() < until:
            if ready := self._set.poll(0):
                return self._but_for_wakes(ready)
            os.sched_yield()  # a thread that has work goes first
        if not self.is_whole():
            raise OSError(
                errno.EBADF,
                "the program has closed the descriptors that its workers are watched by",
            )
        return self._but_for_wakes(self._set.poll(_LOOK_S if seconds is None else seconds))

    def _but_for_wakes(self, ready: list[tuple[int, int]]) -> list[tuple[int, int]]:
        number = self._wake_read.fileno()
        if all(descriptor != number for descriptor, _ in ready):
            return ready
        with contextlib.suppress(BlockingIOError):
            self._wake_read.recv(4096)
        return [each for each in ready if each[0] != number]

    def wake(self) -> None:
        """Make a `poll` in another thread return."""
        with contextlib.suppress(OSError):
            if self._wake_write.is_whole():
                self._wake_write.send(b"\0", SILENTLY)

    def is_whole(self) -> bool:
        """Whether the program has closed nothing of this: no other set knows our socket."""
        try:
            if not self._wake_read.is_whole():
                return False
            self._set.modify(self._wake_read.fileno(), READABLE)
        except (OSError, ValueError):
            return False
        return True

    def close(self) -> None:
        """Let go of everything."""
        if self.is_whole():
            self._set.close()
        else:
            keep_for_ever(self._set)
        self._wake_read.close()
        self._wake_write.close()


class _PolledSet:
    """The same where there is no epoll.

    That is on macOS, and where gevent or eventlet have taken it away.
    """

    def __init__(self, poller: Poller) -> None:
        self._poller = poller
        self._masks: dict[int, int] = {}
        self._changing = threading.Lock()

    def register(self, descriptor: int, mask: int) -> None:
        with self._changing:
            self._masks[descriptor] = mask

    def modify(self, descriptor: int, mask: int) -> None:
        if self._masks.get(descriptor) == mask:
            return
        self.register(descriptor, mask)
        self._poller.wake()  # a poll that runs does not see it

    def unregister(self, descriptor: int) -> None:
        with self._changing:
            self._masks.pop(descriptor, None)

    def poll(self, seconds: float | None) -> list[tuple[int, int]]:
        poll = make_poll()
        with self._changing:
            for descriptor, mask in self._masks.items():
                poll.register(descriptor, mask)
        return poll.poll(None if seconds is None else seconds * 1000)

    def close(self) -> None:
        self._masks.clear()
