# SPDX-License-Identifier: BSD-3-Clause
"""Closed and open loops of requests.

::

    closed   N connections, each sends its next request when it has its answer
    open     requests are due at moments of their own. A thread sleeps until the next one, for
             timers of an event loop are a millisecond coarse. An idle connection sends it, or a new
             one, or it waits for one: its latency counts from the moment at which it was due

A closed loop waits for a slow server, and so asks it less when it is slow; what its clients would
have waited in the meantime is missing in its latencies (coordinated omission).
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from itertools import cycle
from typing import Any

from teamster.errors import UsageError
from teamster.serve.load_generator.connection import Connection, Target
from teamster.serve.load_generator.results import LoadResults

_CONNECT_S = 5.0  # a server that does not accept in that time is not there
_AGAIN_S = 0.05  # no storm against a server that comes back
_SPIN_S = 50e-6  # a sleep takes longer than this by itself


class _Loop:
    """What both kinds of loops have in common."""

    def __init__(self, target: Target, requests: Sequence[bytes], timeout_s: float) -> None:
        self.results = LoadResults()
        self._target, self._requests = target, cycle(requests)
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._open: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself keeps none alive
        self._waiting = 0  # requests without an answer
        self._idle_event = asyncio.Event()

    async def connect(self) -> Connection:
        """One more connection.

        Raises:
            OSError: the server does not accept it.
        """
        target = self._target
        _, connection = await asyncio.wait_for(
            self._loop.create_connection(
                lambda: Connection(self), target.host, target.port, ssl=target.is_secure or None
            ),
            _CONNECT_S,
        )
        self._open.add(connection)
        self.results.connections = max(self.results.connections, len(self._open))
        return connection

    def send(self, connection: Connection, intended: float) -> None:
        connection.send(next(self._requests), intended)

    def answered(self, connection: Connection, status: int) -> None:
        self.results.answered(status, time.perf_counter() - connection.intended)
        self._settled()
        if not connection.is_open:
            self._open.discard(connection)
        self.free(connection)

    def broke(self, connection: Connection, reason: str) -> None:
        self._open.discard(connection)
        if connection.is_busy:
            self.failed(reason)
            self._settled()
        self.lost(connection)

    def failed(self, reason: str) -> None:
        self.results.errors[reason] += 1

    def free(self, connection: Connection) -> None:
        """A connection has its answer."""

    def lost(self, connection: Connection) -> None:
        """A connection has ended."""

    def _settled(self) -> None:
        self._waiting -= 1
        if not self._waiting:
            self._idle_event.set()

    async def settle(self, began: float) -> LoadResults:
        """Until all have their answers, or their time is over."""
        self._idle_event.clear()
        if self._waiting:
            try:
                await asyncio.wait_for(self._idle_event.wait(), self._timeout_s)
            except TimeoutError:
                self.results.errors[f"no answer in {self._timeout_s:g} s"] += self._waiting
        await asyncio.gather(*self._tasks)  # connections under way
        for connection in self._open:
            connection.close()
        self.results.seconds = time.perf_counter() - began
        return self.results

    def keep(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run it beside, to its end."""
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Closed(_Loop):
    async def run(self, connections: int, seconds: float) -> LoadResults:
        began = time.perf_counter()
        self._until = began + seconds
        for each in [await self.connect() for _ in range(connections)]:
            self.free(each)
        await asyncio.sleep(seconds)
        return await self.settle(began)

    def free(self, connection: Connection) -> None:
        if time.perf_counter() >= self._until:
            return
        if not connection.is_open:
            self.lost(connection)
            return
        self.results.asked += 1
        self._waiting += 1
        self.send(connection, time.perf_counter())

    def lost(self, connection: Connection) -> None:
        self.keep(self._again(_AGAIN_S if not connection.number else 0.0))

    async def _again(self, delay: float) -> None:
        await asyncio.sleep(delay)
        while time.perf_counter() < self._until:
            try:
                self.free(await self.connect())
                return
            except (OSError, TimeoutError) as error:
                self.failed(f"cannot connect: {_reason(error)}")
                await asyncio.sleep(_AGAIN_S)


class _Open(_Loop):
    async def run(self, moments: Iterator[float], most: int) -> LoadResults:
        self._most, self._opening = most, 0
        self._free: list[Connection] = [await self.connect()]
        self._backlog: deque[float] = deque()
        all_sent = asyncio.Event()
        began = time.perf_counter()

        def end() -> None:
            self._loop.call_soon_threadsafe(all_sent.set)

        clock = threading.Thread(
            target=_tell, args=(moments, began, self._post, end), name="teamster-load", daemon=True
        )
        clock.start()
        await all_sent.wait()
        return await self.settle(began)

    def _post(self, due: list[float]) -> None:
        self._loop.call_soon_threadsafe(self._due, due)

    def _due(self, moments: list[float]) -> None:
        now = time.perf_counter()
        self.results.asked += len(moments)
        self._waiting += len(moments)
        for moment in moments:
            self.results.was_late(now - moment)
            self._backlog.append(moment)
        self._pump()

    def _pump(self) -> None:
        while self._backlog and self._free:
            connection = self._free.pop()
            if connection.is_open:
                self.send(connection, self._backlog.popleft())
        missing = len(self._backlog) - self._opening
        for _ in range(min(missing, self._most - len(self._open) - self._opening)):
            self._opening += 1
            self.keep(self._one_more())

    async def _one_more(self) -> None:
        try:
            self._free.append(await self.connect())
        except (OSError, TimeoutError) as error:
            if self._backlog:
                self._backlog.popleft()
                self.failed(f"cannot connect: {_reason(error)}")
                self._settled()
        finally:
            self._opening -= 1
        self._pump()

    def free(self, connection: Connection) -> None:
        if connection.is_open:
            self._free.append(connection)
        self._pump()

    def lost(self, connection: Connection) -> None:
        self._pump()


def _tell(
    moments: Iterator[float],
    began: float,
    post: Callable[[list[float]], object],
    end: Callable[[], object],
) -> None:
    """In a thread: posts moments when they have come, all that are due at once."""
    due: list[float] = []
    for moment in moments:
        left = began + moment - time.perf_counter()
        if left > 0:
            if due:
                post(due)
                due = []
                left = began + moment - time.perf_counter()
            if left > _SPIN_S:
                time.sleep(left - _SPIN_S)
        due.append(began + moment)
    if due:
        post(due)
    end()


def closed_loop(
    target: Target,
    requests: Sequence[bytes],
    *,
    connections: int,
    seconds: float,
    timeout_s: float = 30.0,
) -> LoadResults:
    """Ask with some connections, each one request after the other.

    Args:
        target: where.
        requests: their bytes, taken in turn.
        connections: at a time.
        seconds: for how long.
        timeout_s: how long answers are waited for after the end.

    Returns:
        What came of it.

    Raises:
        UsageError: the server is not there.
    """
    return _run(target, lambda: _Closed(target, requests, timeout_s).run(connections, seconds))


def open_loop(
    target: Target,
    requests: Sequence[bytes],
    moments: Iterator[float],
    *,
    connections: int,
    timeout_s: float = 30.0,
) -> LoadResults:
    """Ask at given moments, whatever becomes of the requests before.

    Args:
        target: where.
        requests: their bytes, taken in turn.
        moments: in seconds from the start, rising.
        connections: open at a time, at the most.
        timeout_s: how long answers are waited for after the last request.

    Returns:
        What came of it; latencies count from the moments.

    Raises:
        UsageError: the server is not there.
    """
    return _run(target, lambda: _Open(target, requests, timeout_s).run(moments, connections))


def _run(target: Target, run: Callable[[], Awaitable[LoadResults]]) -> LoadResults:
    async def whole() -> LoadResults:
        return await run()

    try:
        # Not uvloop's: its close() has waited for ever after connections that were given up
        return asyncio.run(whole())
    except (OSError, TimeoutError) as error:
        raise UsageError(f"cannot connect to {target.url}: {_reason(error)}") from None


def _reason(error: OSError) -> str:
    """What the system says: asyncio's own words hold addresses."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return str(error) or f"no answer in {_CONNECT_S:g} s"
