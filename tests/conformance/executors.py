# SPDX-License-Identifier: BSD-3-Clause
"""Executors that are made as those of the standard library are, and work with our pools."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

import teamster as ts


def make_executor(
    kind: str,
    max_workers: int | None = None,
    *,
    start_method: str | None = None,
    initializer: Callable[..., None] | None = None,
    initargs: tuple[Any, ...] = (),
    max_tasks: int | None = None,
) -> Executor:
    """The one place where an executor of ours is made."""
    pool = ts.Pool(
        kind,  # type: ignore[arg-type]
        workers=max_workers,
        start_method=start_method,  # type: ignore[arg-type]
        initializer=initializer,
        initargs=initargs,
        max_tasks_per_worker=max_tasks,
    )
    return pool.executor()


def ThreadPoolExecutor(  # as theirs is called: the tests write the name into programs
    max_workers: int | None = None,
    thread_name_prefix: str = "",
    initializer: Callable[..., None] | None = None,
    initargs: tuple[Any, ...] = (),
) -> Executor:
    return make_executor("thread", max_workers, initializer=initializer, initargs=initargs)


def ProcessPoolExecutor(
    max_workers: int | None = None,
    mp_context: Any = None,
    initializer: Callable[..., None] | None = None,
    initargs: tuple[Any, ...] = (),
    *,
    max_tasks_per_child: int | None = None,
) -> Executor:
    method = None if mp_context is None else mp_context.get_start_method()
    return make_executor(
        "process", max_workers, start_method=method, initializer=initializer, initargs=initargs, max_tasks=max_tasks_per_child
    )
