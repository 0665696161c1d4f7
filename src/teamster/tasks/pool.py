# SPDX-License-Identifier: BSD-3-Clause
"""`Pool`, the object a user holds: parses arguments, owns the teams, closes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from teamster.spine.plan.choice import CANDIDATES
from teamster.spine.plan.plan import Plan
from teamster.spine.trace.report import Report, WallClock
from teamster.spine.workers.backends import assemble, check_start
from teamster.spine.workers.batch import CallStyle
from teamster.spine.workers.job import CallOptions
from teamster.tasks.arguments import MapCall, OnError, check_limits, check_map
from teamster.tasks.auto.planner import Planner, decide, what_needs_processes
from teamster.tasks.mapping import Mapping, ResultStream
from teamster.tasks.monitor import registry
from teamster.tasks.monitor.long_calls import shut_before, take_leave
from teamster.tasks.progress import Bar, Progress
from teamster.tasks.source import Source
from teamster.tasks.submitting import Calls
from teamster.tasks.teams import Teams

if TYPE_CHECKING:
    # Futures are loaded by the first submit: they cost a quarter of the time to a first result
    from concurrent.futures import Future

    from teamster.tasks.executor import PoolExecutor

Backend = Literal["auto", "serial", "thread", "process", "interpreter"]
StartMethod = Literal["forkserver", "spawn", "fork"]

_CLOSE_S = 0.5  # how long workers without work may take to end by themselves


class Pool:
    """A team of workers for one function after another.

    Workers start with the first call that needs them and stay until the pool is closed; use it in a
    ``with`` block.

    Args:
        backend: "serial" runs in the caller, "thread" in threads, "process" in processes, "auto"
            measures and chooses; "interpreter" runs in interpreters of this process (Python 3.14 or
            newer, pure Python code only).
        workers: how many; None for one a usable core (affinity and cgroup quotas considered), or as
            many as "auto" finds useful.
        allow: backends that "auto" may choose, for functions that are not safe in all of them.
        initializer: called once in each worker before its first task.
        initargs: its arguments.
        retries: how often an item is run again after its worker died; not used for exceptions.
        timeout: seconds that one item may run; then its worker is killed and the item gets
            `TaskTimeout`. Processes only.
        max_tasks_per_worker: items after which a process worker is replaced, against leaks of its
            memory; None for never.
        start_method: "forkserver" (None), "spawn" or "fork" for process workers.
        preload: modules that are imported once, before process workers are forked, and not in each.
        plan: one to repeat, in place of `backend` and `workers`.
        progress: True or a label: a bar; a callable (items done, total or None); False; None: a bar
            on a terminal after 2 s.

    Raises:
        UsageError: an argument makes no sense.
        StartMethodRefused: ``start_method="fork"`` where it would hang.

    Example:
        >>> import teamster as ts
        >>> with ts.Pool("thread", workers=2) as pool:
        ...     pool.map(str.upper, ["a", "b"])
        ['A', 'B']
    """

    def __init__(
        self,
        backend: Backend = "auto",
        workers: int | None = None,
        allow: Sequence[str] = CANDIDATES,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        retries: int = 0,
        timeout: float | None = None,
        max_tasks_per_worker: int | None = None,
        start_method: StartMethod | None = None,
        preload: Sequence[str] = (),
        progress: Progress = None,
        plan: Plan | None = None,
    ) -> None:
        needs = what_needs_processes(retries, timeout, max_tasks_per_worker, start_method)
        registry.see_to_the_end()
        asked, limits = decide(backend, workers, allow, plan, needs)
        check_limits(asked, retries, timeout, max_tasks_per_worker)
        check_start(asked.backend, start_method, preload)
        shut_before(start_method)
        self._asked = asked
        self._terms = retries, timeout
        self._progress = progress
        self._teams = Teams(
            partial(
                assemble,
                cores=limits.cores,
                initializer=initializer,
                initargs=initargs,
                max_tasks=max_tasks_per_worker,
                start_method=start_method,
                preload=preload,
            ),
            partial(initializer, *initargs) if initializer is not None else None,
        )
        self._clock = WallClock()
        self._planner = Planner(asked, limits, self._teams)
        self._calls = Calls(self._teams, self._planner, self._terms, self._clock)
        if asked.backend not in ("auto", "serial"):
            self._teams.team(asked)
        registry.open_pools.add(self)
        registry.record_if_asked()

    @property
    def plan(self) -> Plan:
        """How this pool works: what was asked for, or what "auto" has chosen for the latest call.

        Example:
            >>> import teamster as ts
            >>> with ts.Pool() as pool:
            ...     _ = pool.map(abs, [-1, 2])
            ...     pool.plan.choice
            'serial'
        """
        return self._planner.plan

    def map(
        self,
        function: Callable[..., Any],
        iterable: Iterable[Any],
        *more: Iterable[Any],
        chunksize: int | None = None,
        on_error: OnError = "raise",
        seed: int | None = None,
    ) -> list[Any]:
        """Call `function` on every item, in parallel.

        Args:
            function: any callable: lambdas, closures, methods and functions of ``__main__`` too.
            iterable: the items; advanced in this thread only.
            *more: further iterables, zipped with the first as the built-in `map` does.
            chunksize: items handed over at a time; None follows the measured time of an item.
            on_error: "raise" stops and raises the first exception; "return" puts exceptions in the
                places of their items.
            seed: seeds ``random``, numpy and torch before each item, from this number and the
                item's index.

        Returns:
            The results in input order.

        Raises:
            UsageError: an argument makes no sense.
            PoolClosed: the pool is closed.
            TaskError: an item was lost: its worker died, it ran too long, or it does not pickle.

        Example:
            >>> import teamster as ts
            >>> with ts.Pool("serial") as pool:
            ...     pool.map(pow, [2, 3], [5, 2])
            [32, 9]
        """
        with self._clock:
            how = _style(more), chunksize, on_error, seed
            return self._mapping(function, (iterable, *more), *how).collect()

    def starmap(
        self,
        function: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        on_error: OnError = "raise",
        seed: int | None = None,
    ) -> list[Any]:
        """Like `map`, with each item unpacked as the arguments: ``function(*item)``.

        Arguments as of `Pool.map`; `iterable` gives tuples of arguments.

        Returns:
            The results in input order.

        Raises:
            UsageError: an argument makes no sense.

        Example:
            >>> import teamster as ts
            >>> with ts.Pool("serial") as pool:
            ...     pool.starmap(pow, [(2, 5), (3, 2)])
            [32, 9]
        """
        with self._clock:
            return self._mapping(function, (iterable,), "star", chunksize, on_error, seed).collect()

    def imap(
        self,
        function: Callable[..., Any],
        iterable: Iterable[Any],
        *more: Iterable[Any],
        chunksize: int | None = None,
        on_error: OnError = "raise",
        seed: int | None = None,
    ) -> ResultStream:
        """Like `map`, lazily: results in input order as soon as they are there.

        Arguments as of `Pool.map`; the input may be endless. Items are pulled a bounded number
        ahead, in the thread that asks for results; an error is raised when the turn of its item
        comes.

        Returns:
            An iterator; leaving it early cancels what has not started.

        Raises:
            UsageError: an argument makes no sense.

        Example:
            >>> import itertools, teamster as ts
            >>> with ts.Pool("serial") as pool:
            ...     list(itertools.islice(pool.imap(lambda n: n * n, itertools.count()), 4))
            [0, 1, 4, 9]
        """
        how = _style(more), chunksize, on_error, seed
        mapping = self._mapping(function, (iterable, *more), *how, lazy=True)
        return ResultStream(mapping, self, self._clock)

    def imap_unordered(
        self,
        function: Callable[..., Any],
        iterable: Iterable[Any],
        *more: Iterable[Any],
        chunksize: int | None = None,
        on_error: OnError = "raise",
        seed: int | None = None,
    ) -> ResultStream:
        """Like `imap`, in the order of completion.

        Arguments as of `Pool.map`.

        Returns:
            An iterator; leaving it early cancels what has not started.

        Raises:
            UsageError: an argument makes no sense.

        Example:
            >>> import teamster as ts
            >>> with ts.Pool("thread", workers=2) as pool:
            ...     sorted(pool.imap_unordered(abs, [-1, -2]))
            [1, 2]
        """
        how = _style(more), chunksize, on_error, seed
        mapping = self._mapping(function, (iterable, *more), *how, lazy=True, ordered=False)
        return ResultStream(mapping, self, self._clock)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Queue one call.

        Args:
            fn: any callable.
            *args: its arguments.
            **kwargs: its keyword arguments.

        Returns:
            A `concurrent.futures.Future`.

        Raises:
            PoolClosed: it is closed.

        Example:
            >>> import teamster as ts
            >>> with ts.Pool("thread") as pool:
            ...     pool.submit(pow, 2, 5).result()
            32
        """
        return self._calls.submit(self, fn, args, kwargs)

    @property
    def workers(self) -> int:
        """How many workers run submitted calls at once.

        Example:
            >>> import teamster as ts
            >>> ts.Pool("thread", workers=3).workers
            3
        """
        return self._calls.workers

    def executor(self) -> PoolExecutor:
        """This team as a `concurrent.futures.Executor`, for libraries that ask for one.

        Returns:
            The executor; shutting it down leaves the pool open.

        Example:
            >>> import teamster as ts
            >>> with ts.Pool("serial") as pool:
            ...     pool.executor().submit(abs, -3).result()
            3
        """
        from teamster.tasks.executor import PoolExecutor

        return PoolExecutor(self)

    def report(self) -> Report:
        """What the pool has done so far.

        Returns:
            Counts and times.

        Example:
            >>> import teamster as ts
            >>> ts.Pool("serial").report().items
            0
        """
        self._teams.catch_up()
        with self._teams.lock:
            self._teams.note_bytes()
            return self._teams.ledger().read(self.plan, self._clock.seconds)

    def close(self) -> None:
        """Wait for open futures, then end all workers.

        Example:
            >>> import teamster as ts
            >>> pool = ts.Pool("thread")
            >>> pool.close()
        """
        try:
            self._calls.finish()
        except KeyboardInterrupt:  # the user wants an end, and not what is open
            self.terminate()
            raise
        self._end(_CLOSE_S)

    def terminate(self) -> None:
        """End all workers at once, whatever they do; open futures fail with `PoolClosed`.

        Example:
            >>> import teamster as ts
            >>> pool = ts.Pool("process")
            >>> pool.terminate()
        """
        self._end(0.0)

    def _end(self, seconds: float, error: BaseException | None = None) -> None:
        """End all workers, idle ones by themselves in `seconds`; open calls fail with `error`."""
        self._calls.close()
        self._teams.close(seconds, error)
        self._calls.join()
        registry.leave(self)
        take_leave(self)

    def _disown(self) -> None:
        self._teams.disown()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        (self.close if kind is None else self.terminate)()

    def __del__(self) -> None:
        if getattr(self, "_calls", None) is not None and not self._teams.closed:
            self.terminate()

    def __reduce__(self) -> Any:
        raise TypeError("a Pool cannot be sent to a worker; open a pool of its own inside the task")

    def _mapping(
        self,
        function: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
        style: CallStyle,
        chunksize: int | None,
        on_error: OnError,
        seed: int | None,
        *,
        lazy: bool = False,
        ordered: bool = True,
    ) -> Mapping:
        self._teams.check_open()
        registry.attend(self)
        check_map(self._asked, function, chunksize, on_error, seed)
        source = Source(iterables)
        terms, bar = CallOptions(*self._terms, chunksize), Bar(self._progress, source.total)
        raises = on_error == "raise"
        call = MapCall(function, style, seed, source, terms, bar, raises, ordered, lazy)
        mapping = self._planner.mapping(call)
        self._teams.calls.add(mapping)
        return mapping


def _style(more: tuple[Iterable[Any], ...]) -> CallStyle:
    return "star" if more else "call"
