# SPDX-License-Identifier: BSD-3-Clause
"""Means over the samples of many batches, exact where batches differ in size."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from teamster.errors import UsageError
from teamster.train.strategies.strategy import Weight, Work


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
            if isinstance(mean, torch.Tensor) and mean.numel() != 1:
                raise UsageError(
                    "evaluate() takes the mean of one number, or of several by name; the function "
                    f"has returned a tensor of shape {tuple(mean.shape)}"
                )
            # In double precision, and where it is: no device is waited for in every batch
            each = mean.detach().double() if isinstance(mean, torch.Tensor) else float(mean)
            self._sums[name] = self._sums.get(name, 0.0) + each * count
        self._whole += count

    def merge(self, others: list[Mean]) -> None:
        """Be the mean over what all of these have seen."""
        sums: dict[str | None, Any] = {}
        for other in others:
            for name, total in other._sums.items():
                sums[name] = sums.get(name, 0.0) + float(total)
        self._sums, self._whole = sums, sum(other._whole for other in others)

    def value(self) -> Any:
        """The mean, as float or by name.

        Raises:
            UsageError: there was nothing.
        """
        if not self._whole:
            raise UsageError("there is no sample to evaluate: the loader has given none")
        found = {name: float(total) / self._whole for name, total in self._sums.items()}
        return found[None] if list(found) == [None] else found


def mean_over(
    model: nn.Module,
    function: Callable[..., Any],
    batches: Iterable[Any],
    weight: Weight | None,
    mark: Callable[[Work], Work] = lambda work: work,
) -> Mean:
    """The mean of what a function gives, with the model in evaluation mode.

    Args:
        model: the user's.
        function: of the model and a batch.
        batches: of all samples, or of a rank's rows; those without rows are passed over.
        weight: as of `Work`.
        mark: says whose rows those of the latest batch are.

    Example:
        >>> mean_over(nn.Identity(), lambda module, x: x.mean(), [torch.ones(3)], None).value()
        1.0
    """
    mean = Mean()
    before = [(each, each.training) for each in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            for batch in batches:
                given = tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
                work = mark(Work(function, given, weight=weight))
                if work.rows_or_none() != 0:
                    found = function(model, *given)
                    if not work.is_borrowed:
                        mean.add(found, work.count())
    finally:
        for each, training in before:
            each.training = training
    return mean
