# SPDX-License-Identifier: BSD-3-Clause
"""A decision about how to run a job, as a value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """How a job will be run, and why.

    Attributes:
        backend: "serial", "thread" or "process".
        workers: how many.
        reason: one sentence.

    Example:
        >>> import teamster as ts
        >>> print(ts.Pool("thread", workers=3).plan)
        thread(3): asked for
    """

    backend: str
    workers: int
    reason: str

    def __str__(self) -> str:
        return f"{self.backend}({self.workers}): {self.reason}"
