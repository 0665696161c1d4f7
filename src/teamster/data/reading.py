# SPDX-License-Identifier: BSD-3-Clause
"""What a process of a loader does: it has the dataset, and reads rows of batches.

::

    rows --> the process itself, or some threads of it --> samples --> their place in a slot
                                                                   (collated, what is small)
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter, perf_counter_ns, process_time
from typing import Any

import torch
from torch.utils.data._utils import worker as torch_worker
from torch.utils.data._utils.collate import default_collate

from teamster.data.collate import Placed, collate_part, common_form
from teamster.data.fetch import NOTHING, Fetch, Made, join
from teamster.data.sampling import Seed
from teamster.data.slots import SlotRows, write
from teamster.data.witness import answer, stacks_of
from teamster.data.worker_info import as_no_worker
from teamster.spine.trace import spans
from teamster.spine.trace.ring import USER
from teamster.spine.workers.worker_info import current_worker
from teamster.tasks.pool import Pool


class Reader:
    """Reads for one process.

    Args:
        fetch: of the dataset.
        threads: how many read at a time; 1 for the process itself.
    """

    def __init__(self, fetch: Fetch, threads: int) -> None:
        self.fetch = fetch
        self._threads = threads
        self._pool = Pool("thread", workers=threads) if threads > 1 else None

    def samples(self, indices: Sequence[Any], seed: Seed) -> Made:
        """Read samples, in this order.

        Args:
            indices: of the dataset.
            seed: of the first.

        Returns:
            A list of samples.
        """
        # Random numbers are those of all threads; whether any are drawn, the first samples show
        if self._pool is None or len(indices) < 2 or self.fetch.is_seeded:
            return self.fetch.samples(indices, seed)
        step = -(-len(indices) // self._threads)
        cuts = [indices[first : first + step] for first in range(0, len(indices), step)]
        # All are waited for: the error is that of the first sample that has one, as in a loop
        read = partial(self.fetch.samples, seed=None, batch=seed.batch)
        parts = self._pool.map(read, cuts, chunksize=1, on_error="return")
        for part in parts:
            if isinstance(part, BaseException):
                raise part
        return join(parts)


_here: list[Reader] = []  # of this process


def enter(
    fetch: Fetch,
    workers: int,
    base_seed: int,
    init: Callable[[int], object] | None,
    threads: int = 1,
) -> None:
    """Have the dataset, random numbers of its own, and what `get_worker_info` tells.

    Args:
        fetch: of the dataset.
        workers: how many processes there are.
        base_seed: that of the first.
        init: called with the number of this one, or None.
        threads: how many read at a time.
    """
    worker = current_worker()
    number = worker.index if worker is not None else 0
    _here[:] = [Reader(fetch, threads)]
    if fetch.watched:
        answer(lambda: stacks_of(fetch.now_read()))
    become_worker(number, workers, base_seed, fetch.dataset, init)


def become_worker(
    number: int,
    workers: int,
    base_seed: int,
    dataset: Any,
    init: Callable[[int], object] | None,
) -> None:
    """Be a worker of a loader, as torch has them.

    Args:
        number: of this one.
        workers: how many there are.
        base_seed: that of the first.
        dataset: that it reads.
        init: called with the number, or None.
    """
    seed = base_seed + number
    random.seed(seed)
    torch.manual_seed(seed)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(torch_worker._generate_state(base_seed, number))
    torch_worker._worker_info = torch_worker.WorkerInfo(
        id=number, num_workers=workers, seed=seed, dataset=dataset
    )
    if init is not None:
        init(number)


def is_here() -> None:
    """Answered by the first worker that has the dataset."""


def make_whole(indices: Any, seed: Seed) -> Made:
    """Make a batch."""
    return _timed(_here[0].fetch.whole, indices, seed)


def _timed(read: Callable[[Any, Seed], Made], indices: Any, seed: Seed) -> Made:
    """What is read, with the time that it took."""
    began, cpu = perf_counter(), process_time()
    made = read(indices, seed)
    made.read_s, made.cpu_s = perf_counter() - began, process_time() - cpu
    return made


def make_part(indices: Sequence[Any], seed: Seed, place: SlotRows | None) -> Made:
    """Make some rows of a batch.

    Args:
        indices: of the dataset.
        seed: of the first.
        place: in a slot, for what is large; None where there is none.

    Returns:
        `Placed`, `Collated` or `Raw` rows.
    """
    made = _timed(_here[0].samples, indices, seed)
    if not made.value:
        made.value = NOTHING
        return made
    collated = perf_counter_ns()
    form, rest = common_form(made.value), None
    if place is not None and form is not None and len(made.value) == len(indices):
        rest = write(made.value, place)
    if rest is None:
        made.value = as_no_worker(partial(collate_part, form=form), made.value)
    else:
        made.value = Placed(form, as_no_worker(default_collate, rest))
    spans.note(spans.current_ring(), USER, "collate", collated, seed.batch)
    return made
