# SPDX-License-Identifier: BSD-3-Clause
"""Between a body and the scheduler: the inputs of one request of HTTP, and its one answer.

::

    body --Dialect.read--> Inputs --> a Request an input --> scheduler
    answer <--Dialect.write-- Outcomes <--settle-------------------+
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, Protocol

from teamster.serve.request import Reply, Request
from teamster.serve.streaming import Form


class Incoming(NamedTuple):
    """What comes with a body.

    Attributes:
        headers: of the request, names in lower case.
        watch: awaited until the client has gone, where a request waits for long.
        came_ns: when its head was there, of `perf_counter_ns`.
    """

    headers: Mapping[str, str]
    watch: Callable[[], Awaitable[object]]
    came_ns: int


class Inputs(NamedTuple):
    """The inputs of one body.

    Attributes:
        values: decoded; rows of a tensor are one each.
        encode: makes a reply of an output; called where that was computed, and pickled for the way.
        asked: what the dialect has to know when it writes the answer.
        form: in which items are to be sent one after the other; None for an answer as a whole.
    """

    values: list[Any]
    encode: Callable[[Any], Reply]
    asked: Any = None
    form: Form | None = None


class Dialect(Protocol):
    """How inputs and answers are written."""

    def read(self, body: bytes, headers: Mapping[str, str]) -> Inputs:
        """The inputs of a body; raises `Refused`."""

    def write(self, inputs: Inputs, replies: list[Reply]) -> Reply:
        """The answer, of the replies to all inputs."""

    def told(self, error: BaseException) -> Reply:
        """The answer that tells an error."""


class Outcomes:
    """What has become of the requests of one body.

    They know it, and it does not know them: a circle for each would be the collector's to find.

    Args:
        count: of requests.

    Attributes:
        done: set when all have outcomes, or one of them has failed.
        failure: the first error; None for none. It is not raised: a model may call ``sys.exit``.
        replies: in the order of the inputs.
    """

    __slots__ = ("_left", "_replies", "done", "failure")

    def __init__(self, count: int) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.failure: BaseException | None = None
        self._left = count
        self._replies: list[Reply | None] = [None] * count

    def settler(self, index: int) -> Callable[[Reply | BaseException], None]:
        """What one of them calls with its outcome.

        Args:
            index: of it.
        """

        def settle(outcome: Reply | BaseException) -> None:
            if self.done.done():
                return
            if isinstance(outcome, BaseException):
                self.failure = outcome
                self.done.set_result(None)
                return
            self._replies[index] = outcome
            self._left -= 1
            if not self._left:
                self.done.set_result(None)

        return settle

    @property
    def replies(self) -> list[Reply]:
        """As above."""
        return [each for each in self._replies if each is not None]


def requests_of(
    inputs: Inputs,
    key: Callable[[Any], Any],
    watch: Callable[[], Awaitable[object]],
    outcomes: Outcomes,
) -> list[Request]:
    """The requests of one body, one an input.

    Args:
        inputs: of it.
        key: of an input: those of one key go into one batch.
        watch: as of `Incoming`.
        outcomes: are told of each.
    """
    if len(inputs.values) > 1:
        watch = shared(watch)
    found: list[Request] = []
    for index, value in enumerate(inputs.values):
        request = Request(value, inputs.encode, outcomes.settler(index))
        request.key, request.watch = key(value), watch
        found.append(request)
    return found


def shared(watch: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[object]]:
    """One watch for several that wait.

    Args:
        watch: as of `Incoming`; it is awaited once.
    """
    tasks: list[asyncio.Future[object]] = []

    def ask() -> Awaitable[object]:
        if not tasks:
            tasks.append(asyncio.ensure_future(watch()))
        return asyncio.shield(tasks[0])

    return ask
