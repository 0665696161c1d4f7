# SPDX-License-Identifier: BSD-3-Clause
"""The functions that are measured; in a module of their own, so that every peer can pickle them."""

from __future__ import annotations

import time
import zlib
from typing import Any

_BLOCK = bytes(1_600_000)


def same(x: Any) -> Any:
    return x


def loop(_: int) -> int:
    """About 0.4 ms of pure Python."""
    total = 0
    for number in range(16_000):
        total += number
    return total


def checksum(_: int) -> int:
    """About 0.4 ms in C.

    What a pool adds shows here alone. In a Python loop it shows twice: code that runs between two
    items costs the interpreter's branches their prediction, and the loop itself then takes 255 or
    290 us, on one processor and in one process (EPYC, 3.11).
    """
    return zlib.crc32(_BLOCK)


def nap(seconds: float) -> None:
    time.sleep(seconds)


def first(array: Any) -> float:
    return float(array[0])


def full(value: int) -> Any:
    import numpy as np

    return np.full(5_000_000, float(value))


def at(array: Any, index: int) -> float:
    return float(array[index])


def fail(x: Any) -> Any:
    raise ValueError(x)
