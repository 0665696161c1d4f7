# SPDX-License-Identifier: BSD-3-Clause
"""Random numbers that repeat: one seed per item, the same whatever runs it."""

from __future__ import annotations

import sys
from typing import Any

# `torch.initial_seed()` tells it as a number that fits into a tensor
_MOST_OF_TORCH = (1 << 63) - 1


def loaded_generators() -> tuple[str, ...]:
    """Which libraries with generators of their own this program has loaded."""
    return tuple(name for name in ("numpy", "torch") if name in sys.modules)


def task_seed(seed: int, index: int | str) -> int:
    """64 bits from the job's seed and the item's index (BLAKE2b, RFC 7693).

    They are unrelated for neighbours.
    """
    import hashlib

    return int.from_bytes(
        hashlib.blake2b(f"{seed}/{index}".encode(), digest_size=8).digest(), "little"
    )


def seed_task(seed: int, index: int) -> None:
    """Seed ``random``, and numpy and torch when they are loaded, for item `index`."""
    seed_all(task_seed(seed, index))


def seed_all(value: int, *, devices: bool = True) -> None:
    """Seed ``random``, and numpy and torch when they are loaded, with 64 bits.

    Args:
        value: the seed.
        devices: whether torch's generators of GPUs are seeded, too, which nothing here restores.
    """
    import random

    random.seed(value)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(value & 0xFFFF_FFFF)
    if (torch := sys.modules.get("torch")) is not None:
        value &= _MOST_OF_TORCH
        if devices:
            torch.manual_seed(value)
        else:  # and in a hundredth of the time
            torch.default_generator.manual_seed(value)


class kept_random_state:
    """Restores the random state of the caller after seeded work that runs in its own process."""

    def __enter__(self) -> None:
        self._before = generator_states()

    def __exit__(self, *exc: object) -> None:
        restore_generators(self._before)


def generator_states(names: set[str] | None = None) -> dict[str, Any]:
    """Of the random numbers that all threads share.

    Args:
        names: of the generators, "random", "torch" and "numpy.random"; None for all.
    """
    import random

    states: dict[str, Any] = {}
    if names is None or "random" in names:
        states["random"] = random.getstate()
    if (torch := sys.modules.get("torch")) is not None and (names is None or "torch" in names):
        states["torch"] = torch.get_rng_state()
    if (numpy := sys.modules.get("numpy")) is not None and (
        names is None or "numpy.random" in names
    ):
        states["numpy.random"] = numpy.random.get_state()
    return states


def restore_generators(states: dict[str, Any]) -> None:
    """Set generators as they were; nothing is done to those that are.

    Example:
        >>> import random
        >>> before = generator_states()
        >>> _ = random.random()
        >>> restore_generators(before)
        >>> changed_generators(before)
        set()
    """
    import random

    for name in changed_generators(states):
        if name == "random":
            random.setstate(states[name])
        elif name == "torch":
            sys.modules["torch"].set_rng_state(states[name])
        else:
            sys.modules["numpy"].random.set_state(states[name])


def changed_generators(before: dict[str, Any]) -> set[str]:
    """Those that give other numbers now.

    Example:
        >>> import random
        >>> before = generator_states()
        >>> changed_generators(before)
        set()
        >>> _ = random.random()
        >>> changed_generators(before)
        {'random'}
    """
    now, changed = generator_states(set(before)), set()
    if "random" in before and before["random"] != now["random"]:
        changed.add("random")
    if "torch" in before and not sys.modules["torch"].equal(before["torch"], now["torch"]):
        changed.add("torch")
    if "numpy.random" in before:
        (_, keys, *rest), (_, later, *others) = before["numpy.random"], now["numpy.random"]
        if rest != others or (keys != later).any():
            changed.add("numpy.random")
    return changed


def scatter_state() -> None:
    """Give a forked worker random numbers of its own.

    ``random`` itself does so in every forked child.
    """
    import os

    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(int.from_bytes(os.urandom(8), "little"))
