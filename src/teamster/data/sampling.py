# SPDX-License-Identifier: BSD-3-Clause
"""Random numbers of samples: each has a seed of its own, whoever reads it.

::

    epoch's seed (drawn from the loader's generator) + batch and row --> seed of the sample

So a random transform repeats bit for bit with any kind and number of workers, and a sample that is
drawn twice in an epoch is transformed in two ways. Seeding and looking are not free, so they are
done only for the generators that the first samples have drawn from.
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch

from teamster.spine.workers.seeds import (
    changed_generators,
    generator_states,
    restore_generators,
    seed_all,
    task_seed,
)

_LOOKED_AT = 8  # samples: a generator that none of them draws from is left alone


class Seed(NamedTuple):
    """Where the random numbers of a sample come from.

    Attributes:
        epoch: seed of the epoch.
        batch: its position in the epoch.
        row: of the batch.
    """

    epoch: int
    batch: int = 0
    row: int = 0

    def at(self, row: int) -> Seed:
        """Of a row further on.

        Example:
            >>> Seed(7, 3).at(2).at(1)
            Seed(epoch=7, batch=3, row=3)
        """
        return Seed(self.epoch, self.batch, self.row + row)


class SampleSeeds:
    """Reads samples with seeds of their own.

    Attributes:
        drawn: names of the generators that samples have drawn from.

    Example:
        >>> import random
        >>> seeds = SampleSeeds()
        >>> with seeds.kept():
        ...     one, two = (seeds.read(lambda _: random.random(), 3, Seed(1)) for _ in range(2))
        >>> one == two
        True
        >>> seeds.drawn
        {'random'}
    """

    def __init__(self) -> None:
        self.drawn: set[str] = set()
        self._left = _LOOKED_AT
        # The generators are those of all threads: two samples at a time would mix them up
        self._lock = threading.Lock()

    @property
    def active(self) -> bool:
        """Whether samples are looked at, or seeded."""
        return bool(self._left or self.drawn)

    def kept(self) -> AbstractContextManager[None]:
        """Samples are read in here; what is seeded for them is put back at the end."""
        return self._keep() if self.active else nullcontext()

    @contextmanager
    def _keep(self) -> Iterator[None]:
        with self._lock:
            before = generator_states(None if self._left else self.drawn)
            try:
                yield
            finally:
                restore_generators(before)

    def read(self, get: Callable[[Any], Any], index: Any, seed: Seed) -> Any:
        """Read one sample.

        Args:
            get: gives it.
            index: of the sample.
            seed: of the sample.

        Returns:
            The sample.
        """
        if self._left:
            return self._look(get, index, seed)
        if self.drawn:
            _seed(self.drawn, _number(seed))
        return get(index)

    def _look(self, get: Callable[[Any], Any], index: Any, seed: Seed) -> Any:
        seed_all(_number(seed), devices=False)
        before = generator_states()
        try:
            return get(index)
        finally:
            self._left = max(0, self._left - 1)
            self.drawn |= changed_generators(before)


def _number(seed: Seed) -> int:
    return task_seed(seed.epoch, f"{seed.batch}/{seed.row}")


def _seed(generators: set[str], value: int) -> None:
    if len(generators) > 1:
        seed_all(value, devices=False)
    elif "torch" in generators:
        torch.default_generator.manual_seed(value >> 1)
    elif "random" in generators:
        random.seed(value)
    else:
        sys.modules["numpy"].random.seed(value & 0xFFFF_FFFF)
