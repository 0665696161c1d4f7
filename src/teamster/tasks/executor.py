# SPDX-License-Identifier: BSD-3-Clause
"""A pool's team as a `concurrent.futures.Executor`.

It is what other libraries ask for, with what they expect of it.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor as StandardExecutor
from concurrent.futures import Future
from itertools import islice
from time import monotonic
from typing import Any, Protocol

from teamster.errors import PoolClosed, UsageError
from teamster.spine.plan.choice import is_count
from teamster.tasks.arguments import check_callable, check_chunksize
from teamster.tasks.monitor.registry import Reporting
from teamster.tasks.submitting import Calls

DOWN = (
    "cannot schedule new futures after shutdown: this executor was shut down; ask the pool for "
    "another one, or make a new one"
)


class Submitting(Reporting, Protocol):
    """What an executor needs of a pool."""

    _calls: Calls


class PoolExecutor(StandardExecutor):
    """A pool as a `concurrent.futures.Executor`, for libraries that ask for one.

    Its end does not end the pool.

    Example:
        >>> import teamster as ts
        >>> with ts.Pool("thread", workers=2) as pool, pool.executor() as executor:
        ...     list(executor.map(pow, [2, 3], [5, 2]))
        [32, 9]
    """

    def __init__(self, pool: Submitting) -> None:
        self._pool = pool
        self._down = False
        self._futures: weakref.WeakSet[Future[Any]] = weakref.WeakSet()

    @property
    def _max_workers(self) -> int:
        """How many calls run at once.

        It is private by name in the standard executors, and read by Dask and others all the same.
        """
        return self._pool._calls.workers

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
        return self._submit(fn, args, kwargs, None)

    def _submit(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        chunksize: int | None,
    ) -> Future[Any]:
        if self._down:
            raise PoolClosed(DOWN)
        future = self._pool._calls.submit(self._pool, function, arguments, keywords, chunksize)
        self._futures.add(future)
        return future

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """As the built-in `map`, in parallel.

        The calls are submitted at once, whether the results are asked for or not. `Pool.imap` is
        the lazy one, with a bounded read-ahead.

        Args:
            fn: what to call.
            *iterables: zipped, one item of each is a call's arguments; advanced here and now, but
                for `buffersize`.
            timeout: seconds from this call until the last result has to be there; None for ever.
            chunksize: calls handed over at a time; None follows the measured time of a call.
            buffersize: calls that may be submitted before their results are asked for; None for
                all.

        Returns:
            The results, in order. An iterator that is closed early cancels what has not started.

        Raises:
            PoolClosed: the executor was shut down.
            UsageError: an argument makes no sense.
            TimeoutError: by the iterator, when the time is over.

        Example:
            >>> import teamster as ts
            >>> with ts.Pool("serial") as pool:
            ...     list(pool.executor().map(abs, [-3, 4]))
            [3, 4]
        """
        check_callable(fn)
        check_chunksize(chunksize)
        if buffersize is not None and not is_count(buffersize, 1):
            raise UsageError(
                f"buffersize must be at least 1, not {buffersize!r}; leave it out to submit all "
                "calls at once"
            )
        if self._down:
            raise PoolClosed(DOWN)
        deadline = None if timeout is None else monotonic() + timeout
        # A subclass's own `submit` is asked, as by the standard `map`
        plain = getattr(self.submit, "__func__", None) is PoolExecutor.submit
        calls = (
            self._submit(fn, arguments, {}, chunksize) if plain else self.submit(fn, *arguments)
            for arguments in zip(*iterables, strict=False)
        )
        return _results(deque(islice(calls, buffersize)), calls, deadline)

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
            for future in reversed(futures):
                # From the last on, so that none starts in the place of one that was cancelled
                future.cancel()
        if wait:
            for future in futures:
                if not future.cancelled():
                    future.exception()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        self.shutdown(wait=not interrupted, cancel_futures=interrupted)


def _results(
    futures: deque[Future[Any]], more: Iterator[Future[Any]], deadline: float | None
) -> Iterator[Any]:
    """The results in order, none of them held longer than its consumer does.

    Whatever ends this early, the rest is cancelled.
    """
    try:
        while futures:
            yield _next_result(futures, more, deadline)
    finally:
        for future in futures:
            future.cancel()


def _next_result(
    futures: deque[Future[Any]], more: Iterator[Future[Any]], deadline: float | None
) -> Any:
    future = futures.popleft()
    try:
        result = future.result(None if deadline is None else deadline - monotonic())
    finally:
        future.cancel()
    futures.extend(islice(more, 1))
    return result
