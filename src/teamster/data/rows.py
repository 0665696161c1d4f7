# SPDX-License-Identifier: BSD-3-Clause
"""How many rows of a batch a task has."""

from __future__ import annotations

_TARGET_S = 0.001  # of work in a task, at least
_LONGEST_S = 0.05  # for so many rows that each worker has some tasks of a batch
_TASKS = 4  # of a batch for each worker: to hand one over takes the consumer some 0.5 ms
_SHORT_S = 50e-6  # samples that are read faster are not worth a task for some of a batch
_NEWEST = 0.3  # weight of the newest measurement


class RowsPerTask:
    """Follows what a sample takes.

    Args:
        workers: how many there are.

    Attributes:
        sample_s: seconds for one.
        busy: share of them in which a worker computes.

    Example:
        >>> rows = RowsPerTask(2)
        >>> rows.of(64)
        1
        >>> rows.learn(10, 0.002); rows.of(64, urgent=True), rows.of(64)
        (5, 8)
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self.sample_s = 0.0
        self.busy = 0.0

    def learn(self, samples: int, seconds: float, cpu_s: float = 0.0) -> None:
        """A task has ended.

        Args:
            samples: that it has read.
            seconds: for all of them.
            cpu_s: of processor time, in that.
        """
        if samples and seconds:
            took_s, busy = seconds / samples, min(1.0, cpu_s / seconds)
            weight = _NEWEST if self.sample_s else 1.0
            self.sample_s += weight * (took_s - self.sample_s)
            self.busy += weight * (busy - self.busy)

    def of(self, size: int, *, urgent: bool = False) -> int:
        """Rows in the next task.

        Args:
            size: of its batch.
            urgent: whether the consumer waits for this batch, and has none before it.

        Returns:
            At least one, at most all.
        """
        if not self.sample_s:
            return 1
        if self.sample_s < _SHORT_S:
            return max(1, size)
        fine = int(_TARGET_S / self.sample_s)
        coarse = min(size // (_TASKS * self._workers), int(_LONGEST_S / self.sample_s))
        return max(1, min(size, fine if urgent else max(fine, coarse)))
