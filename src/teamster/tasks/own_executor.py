# SPDX-License-Identifier: BSD-3-Clause
"""An executor that is no pool's: it has workers of its own, and ends them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from teamster.errors import PoolClosed, UsageError
from teamster.spine.plan.choice import is_count
from teamster.tasks.executor import DOWN, PoolExecutor
from teamster.tasks.pool import Backend, Pool

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext


class Executor(PoolExecutor):
    """An executor with workers of its own.

    It stands where `ProcessPoolExecutor` or `ThreadPoolExecutor` stood.

    Args:
        max_workers: how many workers; None for one a usable core.
        backend: "process", "thread", "interpreter" or "serial".
        mp_context: of `multiprocessing`; its start method is taken. None for the fork server.
        initializer: called once in each worker before its first task.
        initargs: its arguments.
        **options: of `Pool`: ``retries``, ``timeout`` (seconds), ``max_tasks_per_worker``.

    Raises:
        UsageError: an argument makes no sense.

    Example:
        >>> import teamster as ts
        >>> with ts.Executor(max_workers=2, backend="thread") as executor:
        ...     executor.submit(pow, 2, 5).result()
        32
    """

    def __init__(
        self,
        max_workers: int | None = None,
        backend: Backend = "process",
        mp_context: BaseContext | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        **options: Any,
    ) -> None:
        if backend == "auto":
            raise UsageError(
                "an executor runs single calls, which are not measured: name its backend, "
                "'process' or 'thread'"
            )
        if max_workers is not None and not is_count(max_workers, 1):
            raise UsageError(
                f"max_workers must be greater than 0, not {max_workers!r}; leave it out to use "
                "every core"
            )
        if mp_context is not None:
            options["start_method"] = mp_context.get_start_method()
        self._owned = Pool(
            backend, max_workers, initializer=initializer, initargs=initargs, **options
        )
        super().__init__(self._owned)

    def _submit(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        chunksize: int | None,
    ) -> Future[Any]:
        if self._down:
            raise PoolClosed(DOWN)
        return self._owned._calls.submit(self._owned, function, arguments, keywords, chunksize)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and let the workers go as soon as those that are open are done.

        Args:
            wait: whether to wait for that.
            cancel_futures: whether to cancel those that have not started.

        Example:
            >>> import teamster as ts
            >>> ts.Executor(backend="serial").shutdown()
        """
        self._down = True
        if cancel_futures:
            self._owned._calls.cancel()
        if wait:
            self._owned.close()
        else:
            self._owned._calls.do_at_last(self._owned.terminate)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self._down = True
            self._owned.terminate()
        else:
            self.shutdown()
