# SPDX-License-Identifier: BSD-3-Clause
"""From what is known to a Plan. Pure: starts nothing, measures nothing."""

from __future__ import annotations

from teamster.errors import UsageError
from teamster.spine.plan.check import is_count
from teamster.spine.plan.plan import Plan

BACKENDS = ("auto", "serial", "thread", "process")


def choose(backend: str, workers: int | None, *, cores: int, inside_worker: bool) -> Plan:
    """Decide how a pool works.

    Args:
        backend: one of `BACKENDS`.
        workers: how many were asked for; None for one a usable core.
        cores: usable cores of this machine.
        inside_worker: whether the pool is opened by a task of another.

    Returns:
        The plan. "auto" means processes, and no parallelism where it cannot pay: inside a worker, whose pool keeps the cores
        busy already, and on one core.

    Raises:
        UsageError: the backend is not known, or there would be no worker.
    """
    if backend not in BACKENDS:
        raise UsageError(f"unknown backend {backend!r}; known are {', '.join(map(repr, BACKENDS))}")
    if workers is not None and not is_count(workers, 1):
        raise UsageError(f"workers must be at least 1, not {workers!r}; leave it out to use every core")
    if backend == "serial":
        return Plan("serial", 1, "asked for")
    if backend != "auto":
        return Plan(backend, workers or cores, "asked for")
    if inside_worker:
        return Plan("serial", 1, "inside a worker of another pool, which uses the cores already")
    if workers == 1 or (workers is None and cores == 1):
        return Plan("serial", 1, "one worker is no faster than the caller itself")
    return Plan("process", workers or cores, "processes run any Python code in parallel")
