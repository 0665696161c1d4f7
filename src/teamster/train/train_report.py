# SPDX-License-Identifier: BSD-3-Clause
"""What a training has taken so far."""

from __future__ import annotations

from dataclasses import dataclass, replace

from teamster.units import show_seconds


@dataclass(slots=True)
class TrainReport:
    """Sums over the steps of a trainer.

    Attributes:
        steps: how many.
        samples: in their batches.
        gradients_s: seconds for forward, loss and backward passes.
        update_s: seconds for clipping and the optimizers.

    Example:
        >>> report = TrainReport()
        >>> report.add(64, 0.009, 0.001)
        >>> print(report)
        steps     1 of 10 ms: 9 ms gradients, 1 ms update
        samples   64, 6400 a second
    """

    steps: int = 0
    samples: float = 0.0
    gradients_s: float = 0.0
    update_s: float = 0.0

    def add(self, samples: float, gradients_s: float, update_s: float) -> None:
        """A step more.

        Args:
            samples: in its batch.
            gradients_s: seconds.
            update_s: seconds.
        """
        self.steps += 1
        self.samples += samples
        self.gradients_s += gradients_s
        self.update_s += update_s

    def copy(self) -> TrainReport:
        """As it is now."""
        return replace(self)

    def __str__(self) -> str:
        steps, whole = max(1, self.steps), self.gradients_s + self.update_s
        return (
            f"steps     {self.steps:,} of {show_seconds(whole / steps)}: "
            f"{show_seconds(self.gradients_s / steps)} gradients, "
            f"{show_seconds(self.update_s / steps)} update\n"
            f"samples   {self.samples:,.0f}, {self.samples / max(whole, 1e-9):.4g} a second"
        )
