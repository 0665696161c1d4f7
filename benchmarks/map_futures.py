# SPDX-License-Identifier: BSD-3-Clause
"""Rows of `benchmarks.map` about futures: many open at once, as executors are mostly used."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import multiprocessing as mp
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import teamster as ts
from benchmarks import work

WORKERS = 2

Use = Callable[[cf.Executor, int], object]


def results(executor: cf.Executor, count: int) -> None:
    for future in [executor.submit(work.same, number) for number in range(count)]:
        future.result()


def completed(executor: cf.Executor, count: int) -> None:
    for future in cf.as_completed([executor.submit(work.same, number) for number in range(count)]):
        future.result()


def waited(executor: cf.Executor, count: int) -> None:
    cf.wait([executor.submit(work.same, number) for number in range(count)])


def called_back(executor: cf.Executor, count: int) -> None:
    called: list[object] = []
    futures = [executor.submit(work.same, number) for number in range(count)]
    for future in futures:
        future.add_done_callback(called.append)
    cf.wait(futures)


def cancelled(executor: cf.Executor, count: int) -> None:
    futures = [executor.submit(work.nap, 0.001) for _ in range(count)]
    for future in futures:
        future.cancel()


def awaited(executor: cf.Executor, count: int) -> None:
    async def gather() -> None:
        loop = asyncio.get_running_loop()
        await asyncio.gather(
            *(loop.run_in_executor(executor, work.same, number) for number in range(count))
        )

    asyncio.run(gather())


USES: dict[str, Use] = {
    "result()": results,
    "as_completed": completed,
    "wait": waited,
    "callbacks": called_back,
    "cancel all": cancelled,
    "run_in_executor": awaited,
}


def of_processes(use: Use, count: int, stack: ExitStack) -> dict[str, Callable[[], object]]:
    ours = stack.enter_context(ts.Executor(WORKERS, "process"))
    theirs = stack.enter_context(
        cf.ProcessPoolExecutor(WORKERS, mp_context=mp.get_context("forkserver"))
    )
    for executor in (ours, theirs):
        results(executor, 100)
    return {
        "teamster": partial(use, ours, count),
        "ProcessPoolExecutor": partial(use, theirs, count),
    }


def of_threads(use: Use, count: int, stack: ExitStack) -> dict[str, Callable[[], object]]:
    ours = stack.enter_context(ts.Executor(WORKERS, "thread"))
    theirs = stack.enter_context(cf.ThreadPoolExecutor(WORKERS))
    for executor in (ours, theirs):
        results(executor, 100)
    return {
        "teamster": partial(use, ours, count),
        "ThreadPoolExecutor": partial(use, theirs, count),
    }
