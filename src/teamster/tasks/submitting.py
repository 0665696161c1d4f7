# SPDX-License-Identifier: BSD-3-Clause
"""`submit`: single calls as futures, and the same team as a `concurrent.futures.Executor`.

Who waits for a future leads the team meanwhile: no thread stands between a worker and `result()`. Where nobody waits (asyncio,
callbacks), a daemon thread notices within half a millisecond, and leads until somebody does.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from time import sleep
from typing import Any, Protocol

from teamster.errors import PoolClosed
from teamster.machine.own_threads import own_thread
from teamster.spine.workers.contract import Batch, Spec
from teamster.spine.workers.job import Job, Terms
from teamster.spine.workers.team import Team
from teamster.tasks.patience import Patience

_SPECS_KEPT = 64
_GRACE_S = 0.0005  # how long an answer may find nobody who reads it


class HelpingFuture(Future[Any]):
    """A future whose waiter does the reading."""

    def __init__(self, desk: Desk, pool: object) -> None:
        super().__init__()
        self._desk = desk
        self._pool: object = pool  # a pool without a name must not end under its futures
        self._job: Job | None = None

    def belong_to(self, job: Job) -> None:
        """Its call is this job of the team's."""
        self._job = job

    def let_go(self) -> None:
        """It is done: the pool may end, and what the job holds may go."""
        self._pool = self._job = None

    def cancel(self) -> bool:
        """Take the call back, if it has not started."""
        job = self._job
        if not super().cancel():
            return False
        if job is not None:
            self._desk.take_back(self, job)
        return True

    def result(self, timeout: float | None = None) -> Any:
        """The result, as of any future; waits at most `timeout` seconds."""
        if not self.done():
            timeout = self._desk.help(self, timeout)
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The exception, as of any future; waits at most `timeout` seconds."""
        if not self.done():
            timeout = self._desk.help(self, timeout)
        return super().exception(timeout)


class Desk:
    """Takes single calls for a team."""

    def __init__(self, team: Team, terms: Terms) -> None:
        self._team = team
        self._terms = terms
        self._open: set[Future[Any]] = set()
        self._specs: OrderedDict[bytes, Spec] = OrderedDict()
        self._patience = Patience()
        self._reader: threading.Thread | None = None
        self._closing = False
        self._asleep = False
        self._waken = threading.Semaphore(0)

    def submit(
        self, pool: object, function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Future[Any]:
        """Queue one call; `pool` lives as long as its future."""
        self._patience.ends()
        future = HelpingFuture(self, pool)
        spec, kept = self._spec_for(function)
        job = self._job(spec, future, kept)
        with self._team.lock:
            self._open.add(future)
            batch = Batch(job, -1, [(arguments, keywords)])
            future.belong_to(job)
            self._team.offer(job, [_Claim(batch, future)])
        if self._team.handled_here:
            pass  # submitted by a callback: who leads goes on
        elif self._team.crew.kind == "serial":
            self.drain()
        elif self._team.crew.pulls:
            self._start_reader()
        return future

    def _job(self, spec: Spec, future: HelpingFuture, kept: bool) -> Job:
        def settle(result: Any, error: BaseException | None) -> None:
            self._open.discard(future)
            self._team.jobs.discard(job)
            if not kept:
                self._team.crew.forget(spec)
            if future.done():  # cancelled, or failed when the pool was terminated
                return
            if not future.running() and not future.set_running_or_notify_cancel():
                return  # cancelled this very moment
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)
            future.let_go()

        job = Job(
            spec,
            self._terms,
            on_values=lambda first, values: settle(values[0], None),
            on_error=lambda index, error: settle(None, error),
            on_failure=lambda error: settle(None, error),
        )
        return job

    def take_back(self, future: HelpingFuture, job: Job) -> None:
        """A future was cancelled."""
        job.cancelled = True
        with self._team.lock:
            self._open.discard(future)
            self._team.finish(job)
        future.let_go()

    def _spec_for(self, function: Callable[..., Any]) -> tuple[Spec, bool]:
        """What workers know of this function; calls of the same function share it, as long as it pickles the same."""
        spec = self._team.learn(function, "apply", careful=self._terms.timeout is not None, hurry=True)
        if spec.parcel is None or spec.parcel.buffers:
            return spec, False
        key = spec.parcel.data + repr(spec.context).encode()
        known = self._specs.get(key)
        if known is not None:
            self._specs.move_to_end(key)
            return known, True
        self._specs[key] = spec
        if len(self._specs) > _SPECS_KEPT:
            self._specs.popitem(last=False)  # a worker keeps the function until the pool ends; there are few
        return spec, True

    def _start_reader(self) -> None:
        if self._reader is None:
            self._reader = own_thread(threading.Thread(target=self._read, name="teamster-reader", daemon=True))
            self._reader.start()
        elif self._asleep:
            self._waken.release()

    def _read(self) -> None:
        team = self._team
        while not self._closing:
            self._asleep = True
            if not self._open:
                self._waken.acquire()
            self._asleep = False
            sleep(_GRACE_S)
            if self._open and team.leaderless:
                team.run_until(lambda: self._closing, yielding=True)

    def help(self, future: Future[Any], seconds: float | None) -> float | None:
        """Lead the team until `future` is done, where a leader is of use; returns the seconds still to wait."""
        if self._team.crew.pulls and not self._closing and not self._team.crew.is_inside():
            try:
                left = self._patience.left_s()
                if left is not None and (seconds is None or left < seconds):
                    self._team.run_until(future.done, seconds=left)
                    self._patience.ends()
                    if future.done():
                        return seconds
                    seconds = None if seconds is None else seconds - left
                self._team.run_until(future.done, seconds=seconds)
            except KeyboardInterrupt as interrupt:
                raise interrupt.with_traceback(None) from None  # where in the polling it struck is of no interest
            return None if seconds is None else 0.0
        return seconds

    def drain(self) -> None:
        """Wait until every future is done."""
        self._team.run_until(lambda: not self._open)

    def close(self) -> None:
        """Let the reader end."""
        self._closing = True
        self._waken.release()

    def join(self) -> None:
        """Wait for the reader to end, unless this is a callback, for whose end the reader waits itself."""
        if self._reader is not None and self._reader is not threading.current_thread() and not self._team.handled_here:
            self._reader.join()
            self._reader = None


class _Claim(Batch):
    """A batch that is handed out only if its future was not cancelled; from then on it cannot be."""

    __slots__ = ("_future",)

    def __init__(self, batch: Batch, future: Future[Any]) -> None:
        super().__init__(batch.job, batch.first, batch.items)
        self._future = future

    def claim(self) -> bool:
        """Mark the future as running; False when it was cancelled."""
        return self._future.running() or self._future.set_running_or_notify_cancel()


class Calls(Protocol):
    """What an executor needs of a pool."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Queue one call."""

    def imap(
        self, function: Callable[..., Any], iterable: Iterable[Any], *more: Iterable[Any], chunksize: int | None
    ) -> Iterator[Any]:
        """Call a function on every item, lazily."""


class PoolExecutor(Executor):
    """A pool as a `concurrent.futures.Executor`, for libraries that ask for one. Its end does not end the pool.

    Example:
        >>> import teamster as ts
        >>> with ts.Pool("thread", workers=2) as pool, pool.executor() as executor:
        ...     list(executor.map(pow, [2, 3], [5, 2]))
        [32, 9]
    """

    def __init__(self, pool: Calls) -> None:
        self._pool = pool
        self._down = False
        self._futures: weakref.WeakSet[Future[Any]] = weakref.WeakSet()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Queue one call.

        Args:
            fn: what to call.
            *args: its arguments.
            **kwargs: its keyword arguments.

        Returns:
            Its future.

        Raises:
            PoolClosed: the executor was shut down.

        Example:
            >>> import teamster as ts
            >>> with ts.Pool("serial") as pool:
            ...     pool.executor().submit(abs, -3).result()
            3
        """
        if self._down:
            raise PoolClosed("this executor was shut down; ask the pool for another one")
        future = self._pool.submit(fn, *args, **kwargs)
        self._futures.add(future)
        return future

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        **_: Any,
    ) -> Iterator[Any]:
        """As the built-in `map`, lazily and in parallel.

        Args:
            fn: what to call.
            *iterables: zipped, one item of each is a call's arguments.
            timeout: accepted for the sake of the interface; a limit per item is the pool's `timeout`. In seconds.
            chunksize: items handed over at a time; None follows the measured time of an item.

        Returns:
            The results, in order.

        Raises:
            PoolClosed: the executor was shut down.

        Example:
            >>> import teamster as ts
            >>> with ts.Pool("serial") as pool:
            ...     list(pool.executor().map(abs, [-3, 4]))
            [3, 4]
        """
        if self._down:
            raise PoolClosed("this executor was shut down; ask the pool for another one")
        return self._pool.imap(fn, *iterables, chunksize=chunksize)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls.

        Args:
            wait: whether to wait for the futures that are open.
            cancel_futures: whether to cancel those that have not started.

        Example:
            >>> import teamster as ts
            >>> with ts.Pool("serial") as pool:
            ...     pool.executor().shutdown(wait=True)
        """
        self._down = True
        futures = list(self._futures)
        if cancel_futures:
            for future in futures:
                future.cancel()
        if wait:
            for future in futures:
                if not future.cancelled():
                    future.exception()
