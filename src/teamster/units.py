# SPDX-License-Identifier: BSD-3-Clause
"""Seconds and bytes as people read them."""

from __future__ import annotations

_STEP = 1024.0  # from one unit of memory to the next


def show_seconds(seconds: float) -> str:
    """A duration.

    Args:
        seconds: how long.

    Returns:
        Three digits and a unit, from ns to s.

    Example:
        >>> show_seconds(0.00042), show_seconds(2.3), show_seconds(0.0)
        ('420 us', '2.3 s', '0 ns')
    """
    units = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9))
    unit, scale = next((each for each in units if seconds >= each[1]), units[-1])
    return f"{seconds / scale:.3g} {unit}"


def show_bytes(count: float) -> str:
    """A size.

    Args:
        count: in bytes.

    Returns:
        One decimal and a unit of 1,024 steps, up to TiB.

    Example:
        >>> show_bytes(120), show_bytes(1_610_612_736)
        ('120 B', '1.5 GiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < _STEP:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= _STEP
    return f"{count:.1f} TiB"
