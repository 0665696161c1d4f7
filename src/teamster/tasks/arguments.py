# SPDX-License-Identifier: BSD-3-Clause
"""The arguments of a map call, checked: bad input gets one clear line, before anything starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import FunctionType, MethodType
from typing import Any, Literal

from teamster.errors import UsageError
from teamster.kinds import KINDS
from teamster.spine.plan.choice import is_count
from teamster.spine.plan.plan import Plan
from teamster.spine.workers.batch import CallStyle
from teamster.spine.workers.job import CallOptions
from teamster.tasks.progress import Bar
from teamster.tasks.source import Source

OnError = Literal["raise", "return"]

_ASYNC = 0x80 | 0x200  # coroutine, async generator: as `inspect`, which is slow to import, has it


@dataclass(frozen=True, slots=True)
class MapCall:
    """The arguments of `map` and its kin, checked.

    Attributes:
        function: what to call.
        style: how an item becomes arguments.
        seed: for the random numbers of each item, None for none.
        source: the items.
        terms: of the items: retries, timeout, chunk size.
        bar: its progress.
        raise_errors: whether the first exception ends the call.
        ordered: whether results come in input order.
        lazy: whether the caller takes them one by one.
    """

    function: Callable[..., Any]
    style: CallStyle
    seed: int | None
    source: Source
    terms: CallOptions
    bar: Bar
    raise_errors: bool
    ordered: bool
    lazy: bool


def check_map(
    plan: Plan, function: Callable[..., Any], chunksize: int | None, on_error: str, seed: int | None
) -> None:
    """Refuse arguments of `map` and its kin that make no sense.

    Raises:
        UsageError: one of them does.
    """
    check_callable(function)
    check_chunksize(chunksize)
    check_on_error(on_error)
    check_seed(plan, seed)


def check_chunksize(chunksize: int | None) -> None:
    """Refuse a chunk size that makes no sense.

    Raises:
        UsageError: it is not a positive integer.
    """
    if chunksize is not None and not is_count(chunksize, 1):
        raise UsageError(
            f"chunksize must be at least 1, not {chunksize!r}; leave it out and it follows the "
            "measured time of an item"
        )


def check_on_error(on_error: str) -> None:
    """Refuse an unknown way to treat errors.

    Raises:
        UsageError: it is neither "raise" nor "return".
    """
    if on_error not in ("raise", "return"):
        raise UsageError(f"on_error must be 'raise' or 'return', not {on_error!r}")


def check_callable(function: Callable[..., Any]) -> None:
    """Refuse what cannot be called, and what would only make a coroutine of each call.

    Raises:
        UsageError: it is not callable, or it is an ``async def``.
    """
    if not callable(function):
        raise UsageError(
            f"the first argument must be a function, not {type(function).__name__} {function!r:.60}"
        )
    if is_async(function):
        raise UsageError(
            "the function is an `async def`: a call only makes a coroutine, which no worker would "
            "run; give a function that runs it, as in `def call(x): return asyncio.run(f(x))`"
        )


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calls make coroutines or asynchronous generators.

    Args:
        function: a function, method, `functools.partial` of one, or an object with a ``__call__``.

    Returns:
        False for an ordinary function, also one that hands on what it gets from an ``async def``.
    """
    if type(function) is FunctionType:  # nearly always, and `submit` asks for each call
        return bool(function.__code__.co_flags & _ASYNC)
    while isinstance(function, partial):
        function = function.func
    if not isinstance(function, (FunctionType, MethodType)):
        function = type(function).__call__
    if isinstance(function, MethodType):
        function = function.__func__
    return isinstance(function, FunctionType) and bool(function.__code__.co_flags & _ASYNC)


def check_limits(plan: Plan, retries: int, timeout: float | None, max_tasks: int | None) -> None:
    """Refuse limits that make no sense, or that the kind of worker cannot keep.

    Raises:
        UsageError: one of them does.
    """
    can_kill = plan.backend in KINDS and KINDS[plan.backend].can_kill
    if not is_count(retries, 0):
        raise UsageError(f"retries must be 0 or more, not {retries!r}")
    if timeout is not None and not timeout > 0:
        raise UsageError(f"timeout must be more than 0 seconds, not {timeout!r}")
    if max_tasks is not None and not is_count(max_tasks, 1):
        raise UsageError(f"max_tasks_per_worker must be at least 1, not {max_tasks!r}")
    if timeout is not None and not can_kill:
        raise UsageError(
            f"timeout needs backend='process': a {plan.backend} worker cannot be killed in the "
            "middle of an item"
        )
    if max_tasks is not None and not can_kill:
        raise UsageError(
            f"max_tasks_per_worker needs backend='process': a {plan.backend} worker has no memory "
            "of its own to free"
        )


def check_seed(plan: Plan, seed: int | None) -> None:
    """Refuse a seed where it could not keep its promise.

    Raises:
        UsageError: several threads would share the generators that it seeds.
    """
    if seed is not None and plan.backend == "thread" and plan.workers > 1:
        raise UsageError(
            "seed= cannot make random numbers repeat in several threads, which share one generator "
            "each of random, numpy and torch; use backend='process' or 'serial', or workers=1"
        )
