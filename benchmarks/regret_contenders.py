# SPDX-License-Identifier: BSD-3-Clause
"""The ways to run a workload that the regret suite compares, and how one run is timed."""

from __future__ import annotations

import concurrent.futures as cf
import gc
import math
import multiprocessing as mp
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import teamster as ts
from benchmarks.regret_workloads import Task

COUNTS = (1, 2, 4, 8, 16, 32, 64)
QUICK_THREADS = (2, 8, 64)
QUICK_PROCESSES = (2, 4)

_HOPELESS = 3  # times slower than the best: one run is enough
_CHEAP_S = 0.25  # but what is over sooner than this runs in every round


@dataclass
class Contender:
    """One way to run a workload, and what came of it.

    A `late` one loads NumPy into this process, after which workers of every kind start differently:
    it runs after the others.
    """

    name: str
    kind: Literal["manual", "peer", "auto"]
    call: Callable[[Task], Sequence[Any]]
    after: Callable[[], object] | None = None
    late: bool = False
    plans: list[ts.Plan] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    dropped: bool = False
    fails: str = ""

    @property
    def median(self) -> float:
        """Seconds; infinite where it fails."""
        return statistics.median(self.seconds) if self.seconds and not self.fails else math.inf

    @property
    def chose(self) -> str:
        """What auto chose, the most frequent first."""
        found = Counter(choice(plan) for plan in self.plans).most_common()
        return (
            found[0][0]
            if len(found) == 1
            else ", ".join(f"{name} x{times}" for name, times in found)
        )

    def run(self, task: Task) -> None:
        gc.collect()
        try:
            with limit(task.limit_s):
                began = time.perf_counter()
                results = self.call(task)
                self.seconds.append(time.perf_counter() - began)
            if len(results) != len(task.inputs):
                self.fails = f"{len(results):,} results for {len(task.inputs):,} items"
        except Exception as error:
            self.fails = f"{type(error).__name__}: {error}"
        finally:
            for tidy in (self.after, task.tidy):
                if tidy is not None:
                    tidy()


def choice(plan: ts.Plan) -> str:
    return (
        f"{plan.backend}({plan.workers})" if plan.backend in ("thread", "process") else plan.backend
    )


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    def over(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def loop(task: Task) -> list[Any]:
    function, inputs = task.function, task.inputs
    return [function(x) for x in inputs]


def manual(backend: str, workers: int, task: Task) -> list[Any]:
    return ts.map(task.function, task.inputs, backend=backend, workers=workers, progress=False)


def auto(plans: list[ts.Plan], task: Task) -> list[Any]:
    """What ``ts.map(function, inputs)`` does, with the plan at hand."""
    with ts.Pool(progress=False) as pool:
        results = pool.map(task.function, task.inputs)
        plans.append(pool.plan)
    return results


def thread_pool_executor(task: Task) -> list[Any]:
    with cf.ThreadPoolExecutor() as executor:
        return list(executor.map(task.function, task.inputs))


def process_pool_executor(task: Task) -> list[Any]:
    with cf.ProcessPoolExecutor(mp_context=mp.get_context("forkserver")) as executor:
        return list(executor.map(task.function, task.inputs))


def multiprocessing_pool(task: Task) -> list[Any]:
    with mp.Pool() as pool:
        return pool.map(task.function, task.inputs)


def with_joblib(task: Task) -> list[Any]:
    import joblib  # type: ignore[import-untyped]

    results: list[Any] = joblib.Parallel(n_jobs=-1)(
        joblib.delayed(task.function)(x) for x in task.inputs
    )
    return results


def end_joblib() -> None:
    """It would keep its workers for the next call."""
    from joblib.externals.loky import get_reusable_executor  # type: ignore[import-untyped]

    get_reusable_executor().shutdown(wait=True, kill_workers=True)


def with_mpire(task: Task) -> list[Any]:
    from mpire.pool import WorkerPool

    with WorkerPool() as pool:
        results: list[Any] = pool.map(
            task.function,
            task.inputs,
            iterable_len=len(task.inputs),
            concatenate_numpy_output=False,
        )
        return results


def contenders(quick: bool) -> list[Contender]:
    """In the order of the first round."""
    threads, processes = (QUICK_THREADS, QUICK_PROCESSES) if quick else (COUNTS, COUNTS)
    plans: list[ts.Plan] = []
    found = [
        Contender("loop", "manual", loop),
        Contender("auto", "auto", partial(auto, plans), plans=plans),
    ]
    found += [
        Contender(f"thread({count})", "manual", partial(manual, "thread", count))
        for count in threads
    ]
    peers = [
        Contender("ThreadPoolExecutor", "peer", thread_pool_executor),
        Contender("ProcessPoolExecutor", "peer", process_pool_executor),
        Contender("multiprocessing.Pool", "peer", multiprocessing_pool),
        Contender("joblib", "peer", with_joblib, end_joblib, late=True),
        Contender("mpire", "peer", with_mpire, late=True),
    ]
    found += [] if quick else peers
    return found + [
        Contender(f"process({count})", "manual", partial(manual, "process", count))
        for count in processes
    ]


def measure(task: Task, field_of: list[Contender], rounds: int) -> None:
    """Run each once a round, in an order that moves on by one.

    The late ones have rounds of their own.
    """
    for late in (False, True):
        group = [each for each in field_of if each.late == late]
        warm_up(group)
        for number in range(rounds):
            left = [each for each in group if not each.dropped and not each.fails]
            for position in range(len(left)):
                left[(position + number) % len(left)].run(task)
            if number == 0:
                drop(group, min(each.median for each in field_of))


def warm_up(group: list[Contender]) -> None:
    """Imports and fork servers, which a program pays for once, belong to no contender."""
    for each in group:
        if each.kind != "manual" or each.name in ("thread(2)", "process(2)"):
            with suppress(Exception):  # it will be seen in the first round
                each.call(Task(abs, range(100)))
            each.plans.clear()
            if each.after is not None:
                each.after()


def drop(group: list[Contender], best: float) -> None:
    """Spare the hopeless all further rounds; never auto, which is what is looked at."""
    for each in group:
        if each.kind != "auto" and not each.fails:
            each.dropped = each.median > max(_HOPELESS * best, _CHEAP_S)
