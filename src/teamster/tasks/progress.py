# SPDX-License-Identifier: BSD-3-Clause
"""A progress bar that is right and costs nothing: items, not batches; 20 updates a second.

It is never in a pipe unless asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

Progress = bool | str | Callable[[int, int | None], object] | None
"""True or a label: a bar. A callable: called with items done and their total (None when not known).
None: a bar on a terminal, for jobs of more than two seconds. False: none.
"""

_DELAY_S = 2.0  # a shorter call needs no bar
_INTERVAL_S = 0.05  # 20 updates a second: what an eye sees


class Bar:
    """Progress of one job."""

    def __init__(self, wanted: Progress, total: int | None) -> None:
        self._call = wanted if callable(wanted) else None
        self._label = wanted if isinstance(wanted, str) else None
        self._wanted = bool(wanted)
        self._total = total
        self._done = 0
        self._began = self._shown = perf_counter()
        self._bar: Any = None
        self._silent = wanted is False or (wanted is None and not _is_terminal())

    def add(self, items: int) -> None:
        """`items` more are done."""
        self._done += items
        if self._silent:
            return
        now = perf_counter()
        if now - self._shown >= _INTERVAL_S:
            self._shown = now
            self._show(now)

    def _show(self, now: float) -> None:
        if self._call is not None:
            self._call(self._done, self._total)
        elif self._bar is not None:
            self._bar.update(self._done - self._bar.n)
        elif self._wanted or now - self._began > _DELAY_S:
            self._bar = _make_bar(self._total, self._label, self._done, now - self._began)

    def set_total(self, total: int) -> None:
        """The number of items is known now."""
        self._total = total
        if self._bar is not None:
            self._bar.total = total

    def close(self) -> None:
        """Show the last state."""
        if self._silent:
            return
        if self._call is not None or self._wanted or self._bar is not None:
            self._show(perf_counter())
        if self._bar is not None:
            self._bar.close()


def _is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):
        return False


def _make_bar(total: int | None, label: str | None, done: int, elapsed: float) -> Any:
    from tqdm import tqdm

    class QuietTqdm(tqdm):  # type: ignore[type-arg]
        monitor_interval = 0  # no thread that outlives the bar

    bar = QuietTqdm(total=total, desc=label, unit="item", initial=0, mininterval=0)
    bar.start_t -= elapsed
    bar.update(done)
    return bar
