# SPDX-License-Identifier: BSD-3-Clause
"""`ts.map` and its kin: a pool that lives for one call.

Keyword arguments that a call does not know are those of `Pool`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from teamster.spine.plan.choice import CANDIDATES
from teamster.spine.plan.plan import Plan
from teamster.spine.workers.batch import CallStyle
from teamster.spine.workers.job import CallOptions
from teamster.spine.workers.team import Team
from teamster.tasks.arguments import MapCall, OnError, check_callable
from teamster.tasks.auto.planner import decide
from teamster.tasks.mapping import ResultStream
from teamster.tasks.pool import Pool
from teamster.tasks.progress import Bar
from teamster.tasks.source import Source
from teamster.tasks.teams import Teams


def map(
    function: Callable[..., Any],
    iterable: Iterable[Any],
    *more: Iterable[Any],
    chunksize: int | None = None,
    on_error: OnError = "raise",
    seed: int | None = None,
    **options: Any,
) -> list[Any]:
    """Call `function` on every item, in parallel.

    Args:
        function: any callable: lambdas, closures, methods and functions of ``__main__`` too.
        iterable: the items; advanced in this thread only.
        *more: further iterables, zipped with the first as the built-in `map` does.
        chunksize: items handed over at a time; None follows the measured time of an item.
        on_error: "raise" stops and raises the first exception; "return" puts exceptions in the
            places of their items.
        seed: seeds ``random``, numpy and torch before each item, from this number and the item's
            index.
        **options: of `Pool`: ``backend``, ``workers``, ``initializer``, ``retries``, ``timeout``
            (seconds), ``progress`` and so on.

    Returns:
        The results in input order.

    Raises:
        UsageError: an argument makes no sense.
        TaskError: an item was lost: its worker died, it ran too long, or it does not pickle.

    Example:
        >>> import teamster as ts
        >>> ts.map(lambda n: n * n, range(5))
        [0, 1, 4, 9, 16]
    """
    with Pool(**options) as pool:
        return pool.map(
            function, iterable, *more, chunksize=chunksize, on_error=on_error, seed=seed
        )


def starmap(
    function: Callable[..., Any],
    iterable: Iterable[Iterable[Any]],
    chunksize: int | None = None,
    on_error: OnError = "raise",
    seed: int | None = None,
    **options: Any,
) -> list[Any]:
    """Like `map`, with each item unpacked as the arguments: ``function(*item)``.

    Arguments as of `map`; `iterable` gives tuples of arguments.

    Returns:
        The results in input order.

    Raises:
        UsageError: an argument makes no sense.

    Example:
        >>> import teamster as ts
        >>> ts.starmap(pow, [(2, 5), (3, 2)])
        [32, 9]
    """
    with Pool(**options) as pool:
        return pool.starmap(function, iterable, chunksize, on_error, seed)


def imap(
    function: Callable[..., Any],
    iterable: Iterable[Any],
    *more: Iterable[Any],
    chunksize: int | None = None,
    on_error: OnError = "raise",
    seed: int | None = None,
    **options: Any,
) -> ResultStream:
    """Like `map`, lazily: results in input order as soon as they are there.

    Arguments as of `map`; the input may be endless. Items are pulled a bounded number ahead, in the
    thread that asks for results; an error is raised when the turn of its item comes.

    Returns:
        An iterator; leaving it early ends the workers.

    Raises:
        UsageError: an argument makes no sense.

    Example:
        >>> import itertools, teamster as ts
        >>> list(itertools.islice(ts.imap(lambda n: n * n, itertools.count()), 4))
        [0, 1, 4, 9]
    """
    pool = Pool(**options)
    return pool.imap(
        function, iterable, *more, chunksize=chunksize, on_error=on_error, seed=seed
    ).holding(pool)


def imap_unordered(
    function: Callable[..., Any],
    iterable: Iterable[Any],
    *more: Iterable[Any],
    chunksize: int | None = None,
    on_error: OnError = "raise",
    seed: int | None = None,
    **options: Any,
) -> ResultStream:
    """Like `imap`, in the order of completion.

    Arguments as of `map`.

    Returns:
        An iterator; leaving it early ends the workers.

    Raises:
        UsageError: an argument makes no sense.

    Example:
        >>> import teamster as ts
        >>> sorted(ts.imap_unordered(lambda n: -n, [1, 2]))
        [-2, -1]
    """
    pool = Pool(**options)
    return pool.imap_unordered(
        function, iterable, *more, chunksize=chunksize, on_error=on_error, seed=seed
    ).holding(pool)


def explain(
    function: Callable[..., Any],
    iterable: Iterable[Any],
    *more: Iterable[Any],
    workers: int | None = None,
    allow: Sequence[str] = CANDIDATES,
) -> Plan:
    """Say how `map` would begin, and why: runs the first items in the caller only.

    What is expected is not always what is measured: `map` tries what this promises, and keeps the
    best.

    Args:
        function: any callable.
        iterable: the items; of an iterator those that were run, a quarter of a second of them, are
            gone.
        *more: further iterables, zipped with the first.
        workers: as of `Pool`.
        allow: as of `Pool`.

    Returns:
        The plan, with candidates that were not measured yet; `print` shows it as a table.

    Raises:
        UsageError: an argument makes no sense.
        Exception: what the function raised.

    Example:
        >>> import teamster as ts
        >>> ts.explain(abs, [-1, 2]).choice
        'serial'
    """
    from teamster.tasks.auto.measured import MeasuredMapping

    check_callable(function)
    asked, limits = decide("auto", workers, allow, None, "")
    if asked.backend != "auto":
        return asked
    source = Source((iterable, *more))
    style: CallStyle = "star" if more else "call"
    bar, terms = Bar(False, source.total), CallOptions(0, None, None)
    call = MapCall(
        function, style, None, source, terms, bar, raise_errors=True, ordered=True, lazy=False
    )
    return MeasuredMapping(
        call, Teams(_no_team, None), limits, lambda plan, prints: None, None
    ).probe()


def _no_team(plan: Plan, lock: threading.RLock) -> Team:
    raise AssertionError(f"a probe starts no workers, and {plan} would be some")
