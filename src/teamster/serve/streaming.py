# SPDX-License-Identifier: BSD-3-Clause
"""Outputs that come in parts: what a model yields, sent when it is there.

::

    replica's thread: model --yields--> encoded --call_soon_threadsafe--> queue --> socket
                        ^                                                             |
                        +---- waits when so many are not sent yet, ends when the -----+
                              client has gone

    accept: text/event-stream       data: ITEM, each; event: end, or event: error
    accept: application/x-ndjson    a line each; an error is the last one
    anything else                   a list, when all are there
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from teamster.serve.errors import told
from teamster.serve.request import Reply

_AHEAD = 16  # items that may wait for the socket: a model is not computed for a client that stalls

NOT_KEPT = ((b"cache-control", b"no-cache"),)  # or a cache between would wait for the end

Encode = Callable[[Any], bytes]


class Form(NamedTuple):
    """How items are written one after the other.

    Attributes:
        content_type: of all of them.
        before, after: around each item.
        end: after the last one.
        error: before an error, in place of `before`.
    """

    content_type: bytes
    before: bytes
    after: bytes
    end: bytes = b""
    error: bytes = b""

    def item(self, data: bytes) -> bytes:
        """One of them."""
        return self.before + data + self.after

    def failed(self, error: BaseException) -> bytes:
        """The end of one that has failed."""
        return self.error + told(error).body + self.after


EVENTS = Form(
    b"text/event-stream", b"data: ", b"\n\n", b"event: end\ndata: null\n\n", b"event: error\ndata: "
)
LINES = Form(b"application/x-ndjson", b"", b"\n")


def form_of(accept: str) -> Form | None:
    """What a client asks for.

    Args:
        accept: the header.

    Example:
        >>> form_of("text/event-stream").content_type, form_of("*/*")
        (b'text/event-stream', None)
    """
    if "text/event-stream" in accept:
        return EVENTS
    if "application/x-ndjson" in accept or "application/jsonl" in accept:
        return LINES
    return None


@dataclass(frozen=True, slots=True)
class Whole:
    """Writes all items at once: where a process computes, or the event loop itself.

    Attributes:
        form: of them.
        encode: of one.
    """

    form: Form
    encode: Encode

    def __call__(self, output: Any) -> Reply:
        """All that a model has yielded."""
        parts = [self.form.item(self.encode(each)) for each in _items(output)]
        whole = b"".join([*parts, self.form.end])
        return Reply(200, whole, self.form.content_type, NOT_KEPT)


class Stream:
    """Sends items when they are there.

    Args:
        form: of them.
        encode: of one; called in the replica's thread.
        loop: that sends.
    """

    def __init__(self, form: Form, encode: Encode, loop: asyncio.AbstractEventLoop) -> None:
        self.form, self._encode, self._loop = form, encode, loop
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._credit = threading.Semaphore(_AHEAD)
        self._is_gone = False

    def __call__(self, output: Any) -> Reply:
        """In the replica's thread: hand over what the model yields, one after the other."""
        items = _items(output)
        try:
            for each in items:
                data = self.form.item(self._encode(each))
                self._credit.acquire()
                if self._is_gone:
                    break
                self._loop.call_soon_threadsafe(self._queue.put_nowait, data)
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()  # its ``finally`` runs here, and now
        return Reply(200, b"")

    async def first(self, done: asyncio.Future[None]) -> bytes | None:
        """The first item.

        Args:
            done: set when there will be no more.

        Returns:
            None where there is none.
        """
        done.add_done_callback(lambda _: self._queue.put_nowait(None))
        return await self._queue.get()

    async def rest(
        self, first: bytes | None, failure: Callable[[], BaseException | None]
    ) -> AsyncGenerator[bytes, None]:
        """The bytes of the answer.

        Args:
            first: that was taken already; None for none.
            failure: the error with which it has ended; None for none.
        """
        part = first
        try:
            while part is not None:
                yield part
                self._credit.release()
                part = await self._queue.get()
            error = failure()
            last = self.form.end if error is None else self.form.failed(error)
            if last:
                yield last
        finally:
            self.leave()

    def leave(self) -> None:
        """Nobody reads any more."""
        self._is_gone = True
        self._credit.release()  # of a model that waits


def _items(output: Any) -> Iterator[Any]:
    if isinstance(output, Iterator):
        return output
    return iter([output])
