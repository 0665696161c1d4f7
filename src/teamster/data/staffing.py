# SPDX-License-Identifier: BSD-3-Clause
"""From a plan to workers that fill batches."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from teamster.data.feeding import Feed, Inline
from teamster.data.fetch import Fetch
from teamster.data.packing import costs
from teamster.data.processes import ProcessFeed
from teamster.data.threads import ThreadFeed
from teamster.spine.plan.plan import Plan

_THREADS = 4  # of each process, of a hybrid: with more the interpreter's lock is what bounds them
_PREFETCH = 2  # batches ahead for each worker, as torch has it


def feeder(
    fetch: Fetch,
    init: Callable[[int], object] | None,
    factor: int | None,
    context: Any,
    pinned: bool = False,
) -> Callable[[Plan, int], Feed]:
    """Makes workers, as a plan says.

    Args:
        fetch: of the dataset.
        init: called in each worker with its number, or None.
        factor: batches ahead for each worker; None for the usual number.
        context: of `multiprocessing`, whose start method is used; None for the usual one.
        pinned: whether batches are to be in pinned memory.

    Returns:
        A function of a plan and a seed.

    Example:
        >>> make = feeder(Fetch([3, 4], list, True), None, None, None)
        >>> type(make(Plan("serial", 1, "asked for"), 0)).__name__
        'Inline'
    """
    start_method = context.get_start_method() if context is not None else None

    def make(plan: Plan, base_seed: int) -> Feed:
        ahead = max(2, (factor or _PREFETCH) * plan.workers)
        how: dict[str, Any] = {"base_seed": base_seed, "worker_init_fn": init}
        if plan.backend == "serial":
            return Inline(fetch)
        if plan.backend == "thread":
            return ThreadFeed(fetch, plan.workers, ahead, **how)
        how |= {"start_method": start_method, "pinned": pinned}
        processes = plan.workers
        if plan.backend == "hybrid":
            processes = max(1, plan.workers // _THREADS)
            how["threads"] = -(-plan.workers // processes)
        if said := costs(fetch.dataset, processes):
            warnings.warn(f"teamster: {said}", stacklevel=2)
        return ProcessFeed(fetch, processes, ahead, **how)

    return make
