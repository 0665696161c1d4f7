# SPDX-License-Identifier: BSD-3-Clause
"""Random numbers that repeat: one seed per item, the same whatever runs it."""

from __future__ import annotations

import sys

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
        import random

        self._python = random.getstate()
        numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
        self._numpy = numpy.random.get_state() if numpy else None
        self._torch = torch.get_rng_state() if torch else None

    def __exit__(self, *exc: object) -> None:
        import random

        random.setstate(self._python)
        if self._numpy is not None:
            sys.modules["numpy"].random.set_state(self._numpy)
        if self._torch is not None:
            sys.modules["torch"].set_rng_state(self._torch)


def scatter_state() -> None:
    """Give a forked worker random numbers of its own.

    ``random`` itself does so in every forked child.
    """
    import os

    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(int.from_bytes(os.urandom(8), "little"))
