# SPDX-License-Identifier: BSD-3-Clause
"""What batches take, measured with an example before the first request comes."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from statistics import median
from time import perf_counter
from typing import Any

import msgspec

from teamster.errors import UsageError
from teamster.serve.bodies import encoder_for
from teamster.serve.computing import RequestBatch
from teamster.serve.cost import CostModel
from teamster.serve.errors import WrongInput
from teamster.serve.request import Reply, Request

_log = logging.getLogger("teamster.serve")
_MOST_S = 5.0  # for all of it
_CLOSE = 1e-3  # of numbers: sums in another order, in single precision
_TIMES = 3  # each size; the first one of all counts for nothing


async def warm_up(replicas: Sequence[Any], example: Any, most: int, cost: CostModel) -> int:
    """Run batches of the example: by one replica, and by all at the same time.

    A model whose answer depends on what else is in its batch is told from others before.

    Args:
        replicas: that wait for work.
        example: an input, decoded.
        most: rows of a batch.
        cost: is told what they take.

    Returns:
        Rows that a batch may have: `most`, or 1 where larger ones give something else.

    Raises:
        UsageError: the model fails on it.
    """
    until = perf_counter() + _MOST_S
    alone = (await _run(replicas, example, 1))[0]
    if most > 1 and not _agree(alone, (await _run(replicas[:1], example, 2))[0]):
        _log.warning("batches give other answers than single inputs do: it is served unbatched")
        most = 1
    sizes = [1 << power for power in range(most.bit_length()) if 1 << power < most] + [most]
    for count in dict.fromkeys((1, len(replicas))):
        for size in sizes:
            seconds: list[float] = []
            while len(seconds) < _TIMES * count and perf_counter() < until:
                batches = await _run(replicas[:count], example, size)
                seconds += [batch.seconds for batch in batches]
            if not seconds:
                return most
            cost.observe(size, count, median(seconds))
    return most


def _agree(alone: RequestBatch, pair: RequestBatch) -> bool:
    """Whether an input has the same answer, but for rounding, in a batch of two."""
    if not pair.whole:
        return False
    (wanted,) = alone.outcomes
    assert isinstance(wanted, Reply)
    decode = msgspec.json.decode
    return all(
        isinstance(each, Reply) and _is_close(decode(each.body), decode(wanted.body))
        for each in pair.outcomes
    )


def _is_close(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_close, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_close(one[key], other[key]) for key in one)
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=_CLOSE, abs_tol=_CLOSE)
    return bool(one == other)


async def are_there(replicas: Sequence[Any]) -> None:
    """Wait until all replicas have their models.

    Args:
        replicas: that have been started.

    Raises:
        UsageError: one could not be made.
    """
    for batch in await _run(replicas, None, 0):
        if batch.failure is not None:
            raise UsageError(f"a replica has failed: {batch.failure!r}") from batch.failure


async def _run(replicas: Sequence[Any], example: Any, size: int) -> list[RequestBatch]:
    loop = asyncio.get_running_loop()
    futures: list[asyncio.Future[RequestBatch]] = []
    for replica in replicas:
        future: asyncio.Future[RequestBatch] = loop.create_future()
        requests = [Request(example, encoder_for("")) for _ in range(size)]
        batch = RequestBatch(requests, size, len(replicas))
        batch.told = future.set_result
        futures.append(future)
        replica.run(batch)
    batches = await asyncio.gather(*futures)
    for outcome in (each for batch in batches for each in batch.outcomes):
        if isinstance(outcome, BaseException):
            raise WrongInput(f"the model fails on the example: {outcome!r}") from outcome
    return batches
