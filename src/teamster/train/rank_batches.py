# SPDX-License-Identifier: BSD-3-Clause
"""The rows of a rank out of the batches of a loader; no other rank reads them, if that can be.

::

    loader's own batches:  [3 9 1 7] [2 8 5 0] [6 4]     one permutation for all ranks
    rank 0 of 3 reads       3 9       2 8       6
    rank 1                      1         5       4
    rank 2                        7         0     -       a batch of no rows
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils import data
from torch.utils.data.distributed import DistributedSampler

from teamster.errors import UsageError
from teamster.parallel.scattering import batch_size_or_none, slices
from teamster.tensors.devices import as_device

Rows = Callable[[int], range]
"""Of a batch of so many: those of this rank."""


class RankSampler:
    """A batch sampler that gives the rows of one rank.

    Args:
        batches: the loader's own batch sampler.
        rows: which are this rank's.

    Attributes:
        empty: whether a batch has none of them, in the order of the batches: the loader is given
            one row then, since most collate functions want one.

    Example:
        >>> sampler = RankSampler([[3, 9, 1, 7], [6]], lambda count: range(count // 2))
        >>> list(sampler), list(sampler.empty)
        ([[3, 9], [6]], [False, True])
    """

    def __init__(self, batches: Any, rows: Rows) -> None:
        self._batches = batches
        self._rows = rows
        self.empty: deque[bool] = deque()

    def __iter__(self) -> Iterator[list[Any]]:
        self.empty = empty = deque[bool]()  # several may go through the batches at a time
        return self._go_through(empty)

    def _go_through(self, empty: deque[bool]) -> Iterator[list[Any]]:
        for batch in self._batches:
            indices = list(batch)
            mine = [indices[row] for row in self._rows(len(indices))]
            empty.append(not mine)
            yield mine or indices[:1]

    def __len__(self) -> int:
        return len(self._batches)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches, name)  # batch_size, drop_last, sampler


class RankLoader:
    """A loader, of whose batches a rank gets its rows.

    Args:
        loader: any iterable of batches.
        rows: which are this rank's.
        lends: whether a batch without any of these is given as one row of another rank's.

    Example:
        >>> loader = data.DataLoader(range(5), 2)
        >>> list(RankLoader(loader, lambda count: range(1, count)))
        [tensor([1]), tensor([3]), tensor([], dtype=torch.int64)]
    """

    def __init__(self, loader: Iterable[Any], rows: Rows, *, lends: bool = False) -> None:
        self._rows = rows
        self._lends = lends
        self._sampler: RankSampler | None = None
        self._loader: Any = loader
        batches = getattr(loader, "batch_sampler", None)
        if isinstance(getattr(loader, "sampler", None), DistributedSampler):
            raise UsageError(
                "the loader has a DistributedSampler, and each rank would get its rows of that "
                "rank's part: leave the sampler out, batches() shares the rows out"
            )
        iterable = isinstance(getattr(loader, "dataset", None), data.IterableDataset)
        if isinstance(loader, data.DataLoader) and batches is not None and not iterable:
            self._sampler = RankSampler(batches, rows)
            # The loader's own attributes cannot be set any more, since it checks them once
            self._loader = copy.copy(loader)
            self._loader.__dict__.update(batch_sampler=self._sampler, _iterator=None)

    def __getattr__(self, name: str) -> Any:
        if name in ("state_dict", "load_state_dict"):  # where the loader has a position
            return getattr(self._loader, name)
        raise AttributeError(name)

    def __iter__(self) -> Iterator[Any]:
        return (batch for batch, _ in self.with_owners())

    def with_owners(self) -> Iterator[tuple[Any, bool]]:
        """The batches, and whether each is a row of another rank's."""
        empty: deque[bool] | None = None
        for batch in self._loader:
            if self._sampler is not None and empty is None:
                empty = self._sampler.empty
            mine = None  # all that there are
            if empty is None:
                mine = self._rows(int(batch_size_or_none(batch, 0) or 1))
            elif empty.popleft():
                mine = range(0)
            is_borrowed = self._lends and mine is not None and not mine
            if is_borrowed:
                mine = range(1)
            yield batch if mine is None else _cut(batch, mine), is_borrowed


def _cut(batch: Any, rows: range) -> Any:
    """Some rows of a batch."""
    count = int(batch_size_or_none(batch, 0) or 1)
    sizes = [rows.start, len(rows), count - rows.stop] if rows else [0, 0, count]
    return slices(batch, sizes, [as_device("cpu")] * 3, 0)[1]


def same_random_numbers(broadcast: Callable[[torch.Tensor], None]) -> None:
    """Have torch's generator of rank 0 in all ranks: their samplers draw one permutation.

    Args:
        broadcast: a tensor of rank 0 to all.

    Example:
        >>> same_random_numbers(lambda tensor: None)
    """
    state = torch.get_rng_state()
    broadcast(state)
    torch.set_rng_state(state)
