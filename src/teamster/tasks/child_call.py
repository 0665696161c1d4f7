# SPDX-License-Identifier: BSD-3-Clause
"""One call in a process of its own, as the program knows it.

That is its messages that were not received yet, its result and its end.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from typing import Any, Protocol

from teamster.errors import UsageError
from teamster.spine.transport.pickled import unpack
from teamster.spine.workers.death import Death
from teamster.spine.workers.exceptions import rebuild, transfer_error
from teamster.spine.workers.process.child import Child

INSTEAD = "or make in the process what belongs there"
_MOST_MESSAGES = 64  # that were not received; then the child waits, as it would for a pipe
MOST_BYTES = 16 << 20  # the same, of all of them together
# A message that counts by its bytes; smaller ones are bounded by what a socket holds
LARGE_BYTES = 64 * 1024

Parts = tuple[Any, list[memoryview]]
"""Data and buffers of a message that was not opened yet."""


class Pausing(Protocol):
    """The reader of what the child sends."""

    def put(self, child: Child, message: tuple[Any, ...]) -> bool:
        """Send it a message."""

    def pause(self, child: Child, on: bool) -> None:
        """Read nothing of it while that is `on`."""


class ChildCall:
    """What has come of a call so far; methods want the lock of its keeper.

    Attributes:
        name: of the process, for messages.
        daemon: whether the end of the program ends it.
        done: the call is over: it has returned or raised, or its process has died.
        ended: the process is gone.
        sent: nothing waits to be written to it.
        told: the program knows of the error, or has asked for the end.
        interrupted: Ctrl-C has struck while the program waited for it: it would have struck a child
            of the terminal's, too.
        unread_bytes: of large messages to it that it has not received.
    """

    def __init__(self, reader: Pausing, child: Child, name: str) -> None:
        self.child = child
        self.name = name
        self.daemon = self.done = self.ended = self.told = self.interrupted = False
        self.sent = True
        self.unread_bytes = 0
        # Threads that wait for its end and receive nothing: all that it sends is read, so that it
        # need not wait
        self._drains = 0
        self._asked = ""  # what has ended it on purpose
        self.error: BaseException | None = None
        self.code: int | None = None
        self.inbox: deque[Parts] = deque()
        self._inbox_bytes = 0
        # Messages at the front of the inbox that the child knows to have arrived
        self._acknowledged = 0
        self._reader = reader
        self._began_s = time.monotonic()
        self._result: Parts | None = None  # not opened yet
        self._value: Any = None
        self._opening = threading.RLock()

    def take(self, message: tuple[Any, ...]) -> None:
        """A message of the child's."""
        kind = message[0]
        if kind == "sent":
            self.sent = True
        elif kind == "message":
            self.inbox.append(self.child.channel.parts(message[1]))
            self._inbox_bytes += nbytes(self.inbox[-1])
            if self._drains:
                self._acknowledge_all()
            self._pause_if_full()
        elif kind == "taken":
            self.unread_bytes -= message[1]
        elif kind == "returned":
            self._result, self.done = self.child.channel.parts(message[1]), True
        elif kind == "raised":
            self.error, self.done = rebuild(message[1]), True
        elif kind == "left":
            self.done = True  # sys.exit(), without an error

    def _pause_if_full(self) -> None:
        full = not self._drains and (
            len(self.inbox) >= _MOST_MESSAGES or self._inbox_bytes >= MOST_BYTES
        )
        self._reader.pause(self.child, full)

    def _acknowledge_all(self) -> None:
        """Tell it of those in the inbox of which it was not told yet: the last ones."""
        while self._acknowledged < len(self.inbox):
            self._acknowledge(self.inbox[self._acknowledged])
            self._acknowledged += 1

    def _acknowledge(self, parts: Parts) -> None:
        """Tell the child that a large message is no longer on its way.

        It waits with others until then.
        """
        if (size := nbytes(parts)) >= LARGE_BYTES and not self.ended:
            self._reader.put(self.child, ("taken", size))

    def receive(self) -> Parts:
        """Take the next message out."""
        parts = self.inbox.popleft()
        self._inbox_bytes -= nbytes(parts)
        if self._acknowledged:
            self._acknowledged -= 1
        else:
            self._acknowledge(parts)
        self._pause_if_full()
        return parts

    def drain(self, on: bool) -> None:
        """Read what it sends, however much that is, while a thread waits for its end.

        Else it would wait for a thread that receives.
        """
        self._drains += 1 if on else -1
        if on:
            self._acknowledge_all()
        if not self.ended:
            self._pause_if_full()

    def ask_to_end(self, why: str) -> None:
        """It is ended on purpose: that need not be told."""
        self.told, self._asked = True, why

    def may_be_ended(self) -> bool:
        """Whether the end of the program need not wait for it."""
        return self.daemon or self.interrupted

    def outcome(self) -> tuple[Any, BaseException | None]:
        """What the call has returned, and what it has raised instead.

        To be asked without the keeper's lock, since that may run the user's code.
        """
        with self._opening:
            if self._result is not None:
                parts, self._result = self._result, None
                try:
                    self._value = unpack(*parts)
                except Exception as reason:
                    self.error = transfer_error("the result", reason, INSTEAD)
            self.told = True
            return self._value, self.error

    def end(self, death: Death) -> None:
        """The process is gone."""
        if not self.done:
            self.error = death.error_of_call(self.name, self._asked)
        self.code = death.exitcode if death.signal is None else -death.signal
        self.done = self.ended = self.sent = True

    def give_up(self, error: BaseException) -> None:
        """No more will be known of it."""
        self.error, self.told = self.error or error, True
        self.done = self.ended = self.sent = True

    def disown(self) -> None:
        """In a forked copy of the program."""
        self.give_up(
            UsageError("this process is the child of the program that was forked; ask there")
        )

    def snapshot(self) -> dict[str, Any]:
        """What it does, for a look from outside."""
        since_s = time.monotonic() - self._began_s
        return {
            "label": f"spawn {self.child.index}",
            "function": self.name,
            "pid": self.child.pid or None,
            "since_s": since_s,
        }

    def __del__(self) -> None:
        """An error that was not asked for is not lost without a word."""
        error = getattr(self, "error", None)
        if error is None or self.told or sys.stderr is None:
            return
        sys.stderr.write(f"teamster: {self.name} failed, and nobody has asked for its result:\n")
        sys.excepthook(type(error), error, error.__traceback__)


def nbytes(parts: Parts) -> int:
    """The size of a message, in bytes."""
    return len(parts[0]) + sum(view.nbytes for view in parts[1])
