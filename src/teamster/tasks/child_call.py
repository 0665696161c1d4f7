# SPDX-License-Identifier: BSD-3-Clause
"""One call in a process of its own, as the program knows it: messages that nobody has received yet, its result, its end."""

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
_MOST_MESSAGES = 64  # that nobody has received; then the child waits, as it would for a pipe
_MOST_BYTES = 16 << 20  # the same, of all of them together

Parts = tuple[Any, list[memoryview]]
"""Data and buffers of a message that nobody has opened yet."""


class Pausing(Protocol):
    """Who reads what the child sends."""

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
        told: somebody knows of the error, or has asked for the end.
        drains: somebody waits for its end and receives nothing: all that it sends is read, so that it need not wait.
    """

    def __init__(self, reader: Pausing, child: Child, name: str) -> None:
        self.child = child
        self.name = name
        self.daemon = self.done = self.ended = self.told = self.drains = False
        self.sent = True
        self.error: BaseException | None = None
        self.code: int | None = None
        self.inbox: deque[Parts] = deque()
        self._inbox_bytes = 0
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
            self._inbox_bytes += _nbytes(self.inbox[-1])
            if self._is_full():
                self._reader.pause(self.child, True)
        elif kind == "returned":
            self._result, self.done = self.child.channel.parts(message[1]), True
        elif kind == "raised":
            self.error, self.done = rebuild(message[1]), True
        elif kind == "left":
            self.done = True  # sys.exit(), without an error

    def _is_full(self) -> bool:
        return not self.drains and (len(self.inbox) >= _MOST_MESSAGES or self._inbox_bytes >= _MOST_BYTES)

    def receive(self) -> Parts:
        """Take the next message out."""
        parts = self.inbox.popleft()
        self._inbox_bytes -= _nbytes(parts)
        if not self._is_full():
            self._reader.pause(self.child, False)
        return parts

    def drain(self) -> None:
        """Read what it sends to its end, however much that is: it would wait for who receives, and the caller for it."""
        self.drains = True
        if not self.ended:
            self._reader.pause(self.child, False)

    def outcome(self) -> tuple[Any, BaseException | None]:
        """What the call has returned, and what it has raised instead; without the keeper's lock: that may run the user's code."""
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
            self.error = death.error_of_call(self.name)
        self.code = death.exitcode if death.signal is None else -death.signal
        self.done = self.ended = self.sent = True

    def give_up(self, error: BaseException) -> None:
        """Nobody will know more of it."""
        self.error, self.told = self.error or error, True
        self.done = self.ended = self.sent = True

    def disown(self) -> None:
        """In a forked copy of the program."""
        self.give_up(UsageError("this process is the child of the program that was forked; ask there"))

    def snapshot(self) -> dict[str, Any]:
        """What it does, for who looks from outside."""
        since_s = time.monotonic() - self._began_s
        return {"label": f"spawn {self.child.index}", "function": self.name, "pid": self.child.pid or None, "since_s": since_s}

    def __del__(self) -> None:
        """An error that nobody has asked for is not lost without a word."""
        error = getattr(self, "error", None)
        if error is None or self.told or sys.stderr is None:
            return
        sys.stderr.write(f"teamster: {self.name} failed, and nobody has asked for its result:\n")
        sys.excepthook(type(error), error, error.__traceback__)


def _nbytes(parts: Parts) -> int:
    return len(parts[0]) + sum(view.nbytes for view in parts[1])
