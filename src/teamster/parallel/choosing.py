# SPDX-License-Identifier: BSD-3-Clause
"""How many CPU replicas pay, found out in the first steps: the plain module and all replicas take turns, the faster one stays."""

from __future__ import annotations

import warnings

_TURNS = 4  # of each; the first is a warm-up
_WORTH = 0.95
_HINT_AFTER = 12
_ALONE = 1.25


class Choosing:
    """Chooses the number of replicas, step by step.

    Args:
        most: replicas at the most.
        fixed: whether the user has named them: then they are used.
        cpu: whether they are on the CPU.

    Example:
        >>> choosing = Choosing(2, fixed=False, cpu=True)
        >>> while not choosing.settled:
        ...     choosing.saw(choosing.replicas, 1.0 / choosing.replicas, 64)
        >>> choosing.replicas
        2
    """

    def __init__(self, most: int, *, fixed: bool, cpu: bool) -> None:
        self._most = most
        self._cpu = cpu
        self._fixed = fixed
        self._seen: dict[int, list[float]] = {1: [], most: []}
        self._hinted = False
        self.settled = fixed or most == 1 or not cpu
        self.replicas = most if self.settled else 1

    def saw(self, replicas: int, seconds: float, samples: int) -> None:
        """A forward pass took so long.

        Args:
            replicas: how many ran it.
            seconds: of all of it.
            samples: in the batch.
        """
        if self.settled or replicas != self.replicas:
            return
        self._seen[replicas].append(seconds / max(1, samples))
        if all(len(seen) >= _TURNS for seen in self._seen.values()):
            alone, together = (min(self._seen[count][1:]) for count in (1, self._most))
            self.settled = True
            self.replicas = self._most if together < _WORTH * alone else 1
        else:
            self.replicas = self._most if len(self._seen[self._most]) < len(self._seen[1]) else 1

    def hint(self, steps: int, at_once: float) -> None:
        """Say once that replicas which the user has asked for do not run at the same time.

        Args:
            steps: so far.
            at_once: how many replicas computed at one time, on average.
        """
        if self._hinted or not (self._fixed and self._cpu and self._most > 1) or steps < _HINT_AFTER:
            return
        self._hinted = True
        if at_once < _ALONE:
            warnings.warn(
                f"of {self._most} CPU replicas {at_once:.2f} compute at one time: operations as small as this module's hold the"
                " interpreter's lock (GIL); device_ids=None measures whether the plain module is faster",
                stacklevel=4,
            )
