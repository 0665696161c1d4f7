# SPDX-License-Identifier: BSD-3-Clause
"""Numbers in few letters, for a page on which there is little room."""

from __future__ import annotations

from collections.abc import Iterable

from teamster.cli.top.rates import CallView

_PLAIN = str.maketrans("█▓▒░·▶…─━╸╺↑↓←→", "#%+-.>~----^v<>")


def say_seconds(seconds: float) -> str:
    """A duration in few letters.

    Args:
        seconds: how long.

    Returns:
        Seconds, or a clock.

    Example:
        >>> say_seconds(0.42), say_seconds(42), say_seconds(4242), say_seconds(424242)
        ('0.4 s', '42 s', '1:10:42', '4 d 21 h')
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02}"
    if whole < 86400:
        return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
    return f"{whole // 86400:,} d {whole // 3600 % 24:02} h"


def say_rate(per_s: float) -> str:
    """A rate in few letters.

    Args:
        per_s: items a second.

    Returns:
        The same, or a minute's where less than one comes in a second.

    Example:
        >>> say_rate(0.25), say_rate(2.5), say_rate(25000), say_rate(2.5e6)
        ('15.0/min', '2.5/s', '25,000/s', '2.5M/s')
    """
    if per_s >= 999_950:
        return f"{per_s / 1e6:.1f}M/s"
    if per_s >= 99.95:
        return f"{per_s:,.0f}/s"
    return f"{per_s:.1f}/s" if per_s >= 0.95 or not per_s else f"{per_s * 60:.1f}/min"


def say_share(done: int, total: int) -> str:
    """A percentage that is 100 only when all is done.

    Args:
        done: of them.
        total: all.

    Returns:
        A whole number, rounded down.

    Example:
        >>> say_share(999, 1000), say_share(3, 3)
        ('99%', '100%')
    """
    return f"{100 * done // total}%" if total else "100%"


def say_done(calls: Iterable[CallView]) -> str:
    """How far several calls are, together.

    Args:
        calls: those under way.

    Returns:
        A percentage where all totals are known, else a count.

    Example:
        >>> say_done([])
        'idle'
    """
    seen = [call.seen for call in calls]
    if not seen:
        return "idle"
    done, totals = sum(call.done for call in seen), [call.total for call in seen]
    total = sum(total or 0 for total in totals)
    return say_share(done, total) if total and None not in totals else f"{done:,}"


def make_plain(text: str) -> str:
    """For terminals that know ASCII only.

    Args:
        text: with blocks and dots.

    Returns:
        As many letters, none of which needs more than ASCII.

    Example:
        >>> make_plain("█·")
        '#.'
    """
    return text.translate(_PLAIN).encode("ascii", "replace").decode()
