# SPDX-License-Identifier: BSD-3-Clause
"""How long a pool was at work: the time during which at least one call was under way."""

from __future__ import annotations

import threading
from time import perf_counter


class WallClock:
    """Runs while calls are under way; a context manager around each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls = 0
        self._began = self._ended = 0.0
        self._total_s = 0.0

    def __enter__(self) -> None:
        with self._lock:
            if not self._calls:
                self._began = perf_counter()
            self._calls += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._calls -= 1
            if not self._calls:
                self._ended = perf_counter()
                self._total_s += self._ended - self._began

    def ran_since(self, moment: float) -> bool:
        """Whether a call was under way after a moment of `perf_counter`."""
        with self._lock:
            return bool(self._calls) or self._ended > moment

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        with self._lock:
            return self._total_s + (perf_counter() - self._began if self._calls else 0.0)
