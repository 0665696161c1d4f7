# SPDX-License-Identifier: BSD-3-Clause
"""Random numbers of samples: each has a seed of its own, whoever reads it.

::

    epoch's seed (drawn from the loader's generator) + index --> seed of the sample

So a random transform repeats bit for bit with any kind and number of workers. To seed costs some
20 us, so it is done only as long as samples draw anything: the first ones are looked at.
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable
from typing import Any

import torch

from teamster.spine.workers.seeds import kept_random_state, seed_task

_LOOKED_AT = 8  # samples: none of them draws a number, so no other does


class SampleSeeds:
    """Reads samples with seeds of their own.

    Args:
        base: of the epoch.

    Attributes:
        draws: name of a generator that samples draw from; empty where none does.

    Example:
        >>> import random
        >>> seeds = SampleSeeds(1)
        >>> one, two = (seeds.read(lambda index: random.random(), 3) for _ in range(2))
        >>> one == two
        True
        >>> seeds.draws
        'random'
    """

    def __init__(self, base: int) -> None:
        self.base = base
        self.draws = ""
        self._left = _LOOKED_AT
        # The generators are those of all threads: two samples at a time would mix them up
        self._lock = threading.Lock()

    def read(self, get: Callable[[Any], Any], index: Any) -> Any:
        """Read one sample.

        Args:
            get: gives it.
            index: of the sample.

        Returns:
            The sample.
        """
        if not self._left and not self.draws:
            return get(index)
        with self._lock, kept_random_state():
            seed_task(self.base, index)
            before = None if self.draws else generator_states()
            sample = get(index)
            if before is not None:
                self._left = max(0, self._left - 1)
                self.draws = changed_generator(before)
        return sample


def generator_states() -> dict[str, Any]:
    """Of the random numbers that all threads share."""
    states: dict[str, Any] = {"random": random.getstate(), "torch": torch.get_rng_state()}
    if (numpy := sys.modules.get("numpy")) is not None:
        states["numpy.random"] = numpy.random.get_state()
    return states


def changed_generator(before: dict[str, Any]) -> str:
    """The first one that gives other numbers now; empty when none does.

    Example:
        >>> before = generator_states()
        >>> changed_generator(before)
        ''
        >>> _ = torch.rand(1)
        >>> changed_generator(before)
        'torch'
    """
    now = generator_states()
    if before["random"] != now["random"]:
        return "random"
    if not torch.equal(before["torch"], now["torch"]):
        return "torch"
    if "numpy.random" in before:
        (_, keys, *rest), (_, later, *others) = before["numpy.random"], now["numpy.random"]
        if rest != others or (keys != later).any():
            return "numpy.random"
    return ""
