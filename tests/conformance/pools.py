# SPDX-License-Identifier: BSD-3-Clause
"""`multiprocessing.Pool`'s methods over a pool of ours.

What it has not, and the order of its arguments.
"""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any

import teamster as ts


class AsyncResult:
    """The answer of a call that goes on."""

    def __init__(
        self,
        future: Future[Any],
        callback: Callable[[Any], object] | None,
        error_callback: Callable[[Any], object] | None,
    ) -> None:
        self._future = future
        self._told = threading.Event()
        self._callbacks = callback, error_callback
        future.add_done_callback(self._tell)

    def _tell(self, future: Future[Any]) -> None:
        callback, error_callback = self._callbacks
        error = future.exception()
        try:
            if error is None and callback is not None:
                callback(future.result())
            elif error is not None and error_callback is not None:
                error_callback(error)
        finally:
            self._told.set()

    def wait(self, timeout: float | None = None) -> None:
        self._told.wait(timeout)

    def get(self, timeout: float | None = None) -> Any:
        if not self._told.wait(timeout):
            raise multiprocessing.TimeoutError
        return self._future.result()


class Pool:
    """Looks like `multiprocessing.Pool`."""

    def __init__(
        self, kind: str, processes: int | None = None, maxtasksperchild: int | None = None
    ) -> None:
        self._pool = ts.Pool(kind, workers=processes, max_tasks_per_worker=maxtasksperchild)  # type: ignore[arg-type]
        self._threads: list[threading.Thread] = []

    def apply(
        self, func: Callable[..., Any], args: Iterable[Any] = (), kwds: dict[str, Any] | None = None
    ) -> Any:
        return self._pool.submit(func, *args, **(kwds or {})).result()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: dict[str, Any] | None = None,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[Any], object] | None = None,
    ) -> AsyncResult:
        return AsyncResult(self._pool.submit(func, *args, **(kwds or {})), callback, error_callback)

    def map(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = None
    ) -> list[Any]:
        return self._pool.map(func, iterable, chunksize=chunksize)

    def starmap(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = None
    ) -> list[Any]:
        return self._pool.starmap(func, iterable, chunksize=chunksize)

    def map_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[Any], object] | None = None,
    ) -> AsyncResult:
        return self._later(self.map, (func, iterable, chunksize), callback, error_callback)

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[Any], object] | None = None,
    ) -> AsyncResult:
        return self._later(self.starmap, (func, iterable, chunksize), callback, error_callback)

    def _later(
        self,
        call: Callable[..., Any],
        arguments: tuple[Any, ...],
        callback: Callable[[Any], object] | None,
        error_callback: Callable[[Any], object] | None,
    ) -> AsyncResult:
        """In a thread; a pool that has ended says so at once."""
        self._pool.map(abs, [])
        future: Future[Any] = Future()

        def run() -> None:
            try:
                future.set_result(call(*arguments))
            except BaseException as error:
                future.set_exception(error)

        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()
        return AsyncResult(future, callback, error_callback)

    def imap(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int = 1
    ) -> Iterator[Any]:
        return self._pool.imap(func, iterable, chunksize=chunksize)

    def imap_unordered(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int = 1
    ) -> Iterator[Any]:
        return self._pool.imap_unordered(func, iterable, chunksize=chunksize)

    def close(self) -> None:
        self._pool.close()

    def terminate(self) -> None:
        self._pool.terminate()

    def join(self) -> None:
        while self._threads:
            self._threads.pop().join()

    def __enter__(self) -> Pool:
        self._pool.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.terminate()
