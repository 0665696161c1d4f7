# SPDX-License-Identifier: BSD-3-Clause
"""One request on its way through the server, and the moments of that way."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from time import perf_counter_ns
from typing import Any, NamedTuple


class Reply(NamedTuple):
    """What a client gets.

    Attributes:
        status: of HTTP.
        body: encoded.
        content_type: of it.
        headers: more of them, names in lower case.
        parts: more of the body, that come one after the other; None for no more.
    """

    status: int
    body: bytes
    content_type: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()
    parts: AsyncGenerator[bytes, None] | None = None


class Request:
    """An input that waits for its answer.

    Args:
        value: the input, decoded.
        encode: makes the answer of an output; called where the output was computed.
        settle: told the answer, or the error in place of it; called once, in the event loop. By
            default nobody is.
        deadline_ns: of `perf_counter_ns`; None for none.
        key: inputs of one key go into one batch.
        rows: how many of a batch's rows it is.

    Attributes:
        is_gone: whether nobody waits for the answer any more.
        watch: awaited until the client has gone; None where that cannot be told, or is under way.
        size: of the batch that it was in, in requests.
        batch: the number of it; 0 before there is one.
        received_ns, started_ns, computed_ns: moments; 0 for one that has not come.
    """

    __slots__ = (
        "batch",
        "computed_ns",
        "deadline_ns",
        "encode",
        "is_gone",
        "key",
        "received_ns",
        "rows",
        "settle",
        "size",
        "started_ns",
        "value",
        "watch",
    )

    def __init__(
        self,
        value: Any,
        encode: Callable[[Any], Reply],
        settle: Callable[[Reply | BaseException], object] = lambda outcome: None,
        deadline_ns: int | None = None,
        key: Any = None,
        rows: int = 1,
    ) -> None:
        self.value = value
        self.encode = encode
        self.settle = settle
        self.deadline_ns = deadline_ns
        self.key = key
        self.rows = rows
        self.is_gone = False
        self.watch: Callable[[], Awaitable[object]] | None = None
        self.size = self.batch = 0
        self.received_ns = perf_counter_ns()
        self.started_ns = self.computed_ns = 0
