# SPDX-License-Identifier: BSD-3-Clause
"""The order of torch's own samplers as tensors, for datasets of which rows are selected at once.

To make a list of each batch's indices, and a tensor of that again, takes ten times as long as the
selection itself. Random numbers are drawn from the same generators, in the same steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler

_AT_ONCE = 1 << 16  # indices of a sequence: 512 KiB
_DRAWN_AT_ONCE = 32  # by torch's sampler, with replacement


def batches_of(batch_sampler: Any) -> Iterator[torch.Tensor] | None:
    """The batches of a sampler, as it would give them.

    Args:
        batch_sampler: of a loader.

    Returns:
        Indices, one tensor a batch; None where the sampler is not one of torch's own.

    Example:
        >>> order = batches_of(BatchSampler(SequentialSampler("abcde"), 2, drop_last=False))
        >>> [batch.tolist() for batch in order]
        [[0, 1], [2, 3], [4]]
        >>> batches_of(BatchSampler([3, 4], 2, drop_last=False)) is None
        True
    """
    if type(batch_sampler) is not BatchSampler:
        return None
    sampler = batch_sampler.sampler
    if type(sampler) is SequentialSampler:
        pieces = _sequence(sampler)
    elif type(sampler) is RandomSampler:
        pieces = _shuffled(sampler)
    else:
        return None
    return _batched(pieces, batch_sampler.batch_size, batch_sampler.drop_last)


def _sequence(sampler: Any) -> Iterator[torch.Tensor]:
    count = len(sampler.data_source)
    for first in range(0, count, _AT_ONCE):
        yield torch.arange(first, min(first + _AT_ONCE, count), device="cpu")


def _shuffled(sampler: Any) -> Iterator[torch.Tensor]:
    count, generator = len(sampler.data_source), sampler.generator
    if generator is None:
        seed = int(torch.empty((), dtype=torch.int64).random_().item())
        generator = torch.Generator()
        generator.manual_seed(seed)
    if sampler.replacement:
        for first in range(0, sampler.num_samples + 1, _DRAWN_AT_ONCE):
            size = (min(_DRAWN_AT_ONCE, sampler.num_samples - first),)
            yield torch.randint(high=count, size=size, dtype=torch.int64, generator=generator)
        return
    whole, rest = divmod(sampler.num_samples, count)
    for _ in range(whole):
        yield torch.randperm(count, generator=generator)
    if rest or sampler.generator is not None:  # which is drawn from in any case
        yield torch.randperm(count, generator=generator)[:rest]


def _batched(pieces: Iterator[torch.Tensor], size: int, drop_last: bool) -> Iterator[torch.Tensor]:
    """Of one size, but for the last; a piece is made when the one before it does not suffice."""
    at, end, drawn = 0, 0, torch.empty(0, dtype=torch.int64, device="cpu")
    while True:
        if end - at < size:
            several, end = [drawn[at:]], end - at
            at = 0
            while end < size and (piece := next(pieces, None)) is not None:
                several.append(piece.cpu())
                end += len(piece)
            drawn = torch.cat(several)
        if at == end or (drop_last and end - at < size):
            return
        yield drawn[at : at + size]
        at = min(at + size, end)
