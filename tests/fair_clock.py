# SPDX-License-Identifier: BSD-3-Clause
"""A clock for deadlines: it goes slower where the machine is busy with others."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path


class FairClock:
    """Seconds as this machine gives them.

    Where 8 threads want to run on 2 cores, each gets a quarter of a core. So a deadline means the
    same on a machine that does nothing else and on one that is busy with other programs; no second
    is stretched to more than `LONGEST`, and a hang still ends in front of pytest's own time limit.
    """

    LONGEST = 15.0

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = time.monotonic()
        self._seconds = 0.0

    def read(self) -> float:
        """Seconds since it was made; it has to be read often."""
        with self._lock:
            now = time.monotonic()
            self._seconds += (now - self._last) / self._crowd()
            self._last = now
            return self._seconds

    def _crowd(self) -> float:
        try:
            running = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0])
        except (OSError, ValueError, IndexError):
            return 1.0
        return min(max(1.0, running / (os.cpu_count() or 1)), self.LONGEST)
