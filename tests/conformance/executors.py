# SPDX-License-Identifier: BSD-3-Clause
"""Our executor under the names, and with the arguments, of the standard library's two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import teamster as ts


def ThreadPoolExecutor(
    max_workers: int | None = None,
    thread_name_prefix: str = "",
    initializer: Callable[..., object] | None = None,
    initargs: tuple[Any, ...] = (),
) -> ts.Executor:
    return ts.Executor(max_workers, "thread", initializer=initializer, initargs=initargs)


def ProcessPoolExecutor(
    max_workers: int | None = None,
    mp_context: Any = None,
    initializer: Callable[..., object] | None = None,
    initargs: tuple[Any, ...] = (),
    *,
    max_tasks_per_child: int | None = None,
) -> ts.Executor:
    return ts.Executor(
        max_workers,
        "process",
        mp_context,
        initializer=initializer,
        initargs=initargs,
        max_tasks_per_worker=max_tasks_per_child,
    )
