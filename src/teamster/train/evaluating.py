# SPDX-License-Identifier: BSD-3-Clause
"""Means over the samples of many batches, exact where batches differ in size."""

from __future__ import annotations

from typing import Any

import torch

from teamster.errors import UsageError


class Mean:
    """The mean of numbers by name, weighted.

    Example:
        >>> mean = Mean()
        >>> mean.add({"loss": torch.tensor(1.0), "right": 0.5}, 2)
        >>> mean.add({"loss": torch.tensor(4.0), "right": 1.0}, 1)
        >>> mean.value()
        {'loss': 2.0, 'right': 0.6666666666666666}
    """

    def __init__(self) -> None:
        self._sums: dict[str | None, Any] = {}
        self._whole = 0.0

    def add(self, means: Any, count: float) -> None:
        """Those of a batch.

        Args:
            means: a number, or several by name.
            count: how much the batch counts.
        """
        named = means if isinstance(means, dict) else {None: means}
        for name, mean in named.items():
            # In double precision, and where it is: no device is waited for in every batch
            each = mean.detach().double() if isinstance(mean, torch.Tensor) else float(mean)
            self._sums[name] = self._sums.get(name, 0.0) + each * count
        self._whole += count

    def value(self) -> Any:
        """The mean, as float or by name.

        Raises:
            UsageError: there was nothing.
        """
        if not self._whole:
            raise UsageError("there is no sample to evaluate: the loader has given none")
        found = {name: float(total) / self._whole for name, total in self._sums.items()}
        return found[None] if list(found) == [None] else found
