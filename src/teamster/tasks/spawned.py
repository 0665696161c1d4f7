# SPDX-License-Identifier: BSD-3-Clause
"""A process that `ts.spawn` has started, from its own side.

That is `ts.parent()`, and the call that it makes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections import deque
from time import monotonic, perf_counter_ns
from typing import Any

from teamster import lifetime
from teamster.errors import UsageError
from teamster.spine.trace import spans
from teamster.spine.trace.ring import COMPUTE
from teamster.spine.transport.channel import Encoded
from teamster.spine.transport.parcel import Parcel
from teamster.spine.transport.pickled import pack_home, unpack
from teamster.spine.workers.exceptions import describe, transfer_error
from teamster.spine.workers.process.child_main import ChildProcess
from teamster.spine.workers.process.leaving import end_copy
from teamster.spine.workers.scoreboard import SERVING
from teamster.tasks.child_call import LARGE_BYTES, MOST_BYTES, Parts
from teamster.tasks.child_call import nbytes as nbytes_of

INSTEAD = "or make in the program what belongs there"
# Until a look at what another thread may have read in order to get memory back for what it sends
_SLICE_S = 0.2

_parent: Parent | None = None


def parent() -> Parent | None:
    """The program that has started this process with `teamster.spawn`.

    Returns:
        Where to send messages to, and to receive them from; None in any other process.

    Example:
        >>> import teamster as ts
        >>> ts.parent() is None
        True
        >>> with ts.spawn(lambda: ts.parent().send("hello")) as process:
        ...     process.recv()
        'hello'
    """
    return _parent


class Parent:
    """The program, as a process that it has spawned sees it; several threads may use it.

    Args:
        child: this process.
        pid: of the program.

    Attributes:
        pid: its process id.

    Example:
        >>> import teamster as ts
        >>> ts.spawn(lambda: ts.parent().pid).result() == os.getpid()
        True
    """

    def __init__(self, child: ChildProcess, pid: int) -> None:
        self.pid = pid
        self._child = child
        self._channel = child.channel
        self._sending = threading.RLock()
        # Of what has come: a thread that sends may have to read, too, to get memory back
        self._reading = threading.RLock()
        self._inbox: deque[Parts] = deque()
        self._unread_bytes = 0  # of large messages that the program has not received
        self._ended = False
        self._owner = os.getpid()

    def send(self, value: Any) -> None:
        """Send a message to the program: its ``process.recv()`` returns it.

        Waits while the program has not read what was sent before.

        Args:
            value: anything that pickles; large arrays travel through shared memory.

        Raises:
            TransferError: it does not pickle.
            BrokenPipeError: the program is gone.

        Example:
            >>> import teamster as ts
            >>> ts.spawn(lambda: ts.parent().send([1, 2])).recv()
            [1, 2]
        """
        parcel = _pack("the message", value)
        self._check_process()
        with self._sending:
            while self._unread_bytes >= MOST_BYTES and not self._ended:
                self._wait_for_input(None)
            self._unread_bytes += parcel.nbytes if parcel.nbytes >= LARGE_BYTES else 0
            self._child.tracing.ring_if_asked()
            self._put("message", parcel)

    def _put(self, kind: str, parcel: Parcel) -> None:
        with self._reading:
            encoded = self._channel.stow(parcel)
        self._channel.put((kind, encoded))

    def recv(self, timeout: float | None = None) -> Any:
        """The next message that the program has sent with ``process.send(...)``.

        Args:
            timeout: seconds to wait for one; None for as long as it takes.

        Returns:
            What was sent; arrays in it are views of shared memory, which is used again when they
            are gone.

        Raises:
            TimeoutError: none has come.
            EOFError: the program sends no more.

        Example:
            >>> import teamster as ts
            >>> with ts.spawn(lambda: ts.parent().recv() + 1) as process:
            ...     process.send(1)
            ...     process.result()
            2
        """
        self._check_process()
        deadline = None if timeout is None else monotonic() + timeout
        while True:
            if not self.poll(None if deadline is None else deadline - monotonic()):
                raise TimeoutError(f"no message of the program in {timeout} s")
            with self._reading:
                if self._inbox:
                    parts = self._inbox.popleft()
                    break
                if self._ended:
                    raise EOFError("the program sends no more")
        if (nbytes := nbytes_of(parts)) >= LARGE_BYTES:
            with self._sending, contextlib.suppress(OSError):
                self._channel.put(("taken", nbytes))
        self._child.tracing.ring_if_asked()
        return self._child.open(unpack, *parts)

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Whether `recv` would not wait: a message is there, or the program sends no more.

        Args:
            timeout: seconds to wait for that; None for as long as it takes.

        Returns:
            False when the time was over before.

        Example:
            >>> import teamster as ts
            >>> ts.spawn(lambda: ts.parent().poll(timeout=0.01)).result()
            False
        """
        self._check_process()
        deadline = None if timeout is None else monotonic() + timeout
        while not self._has_any():
            left = None if deadline is None else deadline - monotonic()
            if left is not None and left <= 0:
                return False
            self._wait_for_input(left)
        return True

    def _has_any(self) -> bool:
        with self._reading:
            while not self._inbox and not self._ended and self._channel.has_input(0.0):
                self._read()
            return bool(self._inbox or self._ended)

    def _wait_for_input(self, seconds: float | None) -> None:
        self._channel.has_input(_SLICE_S if seconds is None else min(seconds, _SLICE_S))
        with self._reading:
            if self._channel.has_input(0.0) and not self._ended:
                self._read()

    def _read(self) -> None:
        messages = self._channel.take()
        if messages is None:
            self._ended = True
            return
        for message in messages:
            if message[0] == "message":
                self._inbox.append(self._channel.parts(message[1]))
            elif message[0] == "taken":
                self._unread_bytes -= message[1]

    def _check_process(self) -> None:
        if os.getpid() != self._owner:
            raise UsageError(
                "the program is the parent of the process that was forked, and not of this copy of "
                "it"
            )

    def _tell(self, *message: Any) -> None:
        """Say how the call has ended."""
        with self._sending:
            self._channel.put(message)

    def _tell_result(self, value: Any) -> None:
        """Send what the call has returned.

        Raises:
            TransferError: it does not pickle.
        """
        parcel = _pack(f"the result of type {type(value).__name__}", value)
        with self._sending:
            self._put("returned", parcel)


def _pack(what: str, value: Any) -> Parcel:
    try:
        return pack_home(value)
    except Exception as reason:
        raise transfer_error(what, reason, INSTEAD) from reason


def make_call(child: ChildProcess, argument: Encoded, title: str) -> int:
    """Call what the program has asked for, and tell what it comes to.

    This is the entry point of spawned processes.
    """
    global _parent
    child.take_place()
    # As in any Python; a worker of a pool has the system's
    signal.signal(signal.SIGINT, signal.default_int_handler)
    lifetime.in_forked_copy(_forget)
    mine, ring, began = os.getpid(), child.tracing.ring_if_asked(), perf_counter_ns()
    told = _parent = Parent(child, child.kin["pid"])
    error: BaseException | None = None
    code = 0
    try:
        target, args, kwargs = child.argument(argument)
        child.scoreboard.enter(SERVING)
        value = target(*args, **kwargs)
        if os.getpid() == mine:
            told._tell_result(value)
    except SystemExit as left:
        error, code = left, left.code if isinstance(left.code, int) else int(left.code is not None)
        if left.code is not None and not isinstance(left.code, int):
            print(left.code, file=sys.stderr)  # as at the end of a program
        if os.getpid() == mine:
            told._tell(*(("raised", describe(left)) if code else ("left",)))
    except BaseException as raised:
        error, code = raised, 1
        if os.getpid() == mine:
            told._tell("raised", describe(raised))
    if os.getpid() != mine:  # a copy that the target has forked has come to its end
        end_copy(error)
    if (ring := child.tracing.ring_if_asked() or ring) is not None:
        ring.write(began, perf_counter_ns(), -1, 1, ring.name(title), COMPUTE)
    spans.leave_thread()
    return code & 0xFF


def _forget() -> None:
    """In a copy that the target has forked: its parent is the process itself."""
    global _parent
    _parent = None
