# SPDX-License-Identifier: BSD-3-Clause
"""How many rows of a batch a task has."""

from __future__ import annotations

_TARGET_S = 0.001  # of work in a task: to hand it over costs some 30 us
_SHORT_S = 50e-6  # samples that are read faster are not worth a task for some of a batch
_NEWEST = 0.3  # weight of the newest measurement


class RowsPerTask:
    """Follows what a sample takes.

    Example:
        >>> rows = RowsPerTask()
        >>> rows.of(64)
        1
        >>> rows.learn(10, 0.002); rows.of(64)
        5
    """

    def __init__(self) -> None:
        self.sample_s = 0.0

    def learn(self, samples: int, seconds: float) -> None:
        """A task has ended.

        Args:
            samples: that it has read.
            seconds: for all of them.
        """
        if samples:
            took_s = seconds / samples
            known = self.sample_s
            self.sample_s = known + _NEWEST * (took_s - known) if known else took_s

    def of(self, size: int) -> int:
        """Rows in the next task.

        Args:
            size: of its batch.

        Returns:
            At least one, at most all.
        """
        if not self.sample_s:
            return 1
        if self.sample_s < _SHORT_S:
            return max(1, size)
        return max(1, min(size, int(_TARGET_S / self.sample_s)))
