# SPDX-License-Identifier: BSD-3-Clause
"""Strategies by their names."""

from __future__ import annotations

from torch import nn

from teamster.errors import UsageError
from teamster.train.strategies.auto import Measuring
from teamster.train.strategies.ddp import Ranks
from teamster.train.strategies.dp import Replicated
from teamster.train.strategies.single import Single
from teamster.train.strategies.strategy import Strategy

NAMES = "auto", "single", "dp", "ddp"


def make_strategy(name: str, module: nn.Module, workers: int | None, retries: int) -> Strategy:
    """A strategy by its name.

    Args:
        name: one of `NAMES`.
        module: the user's.
        workers: replicas or ranks; None to find out.
        retries: deaths of ranks that it outlives.

    Raises:
        UsageError: there is none of this name, or it cannot run here.

    Example:
        >>> make_strategy("single", nn.Linear(1, 1), None, 1).name
        'single'
    """
    if name == "single":
        if workers not in (None, 1):
            raise UsageError(f"strategy 'single' has one worker, not {workers}")
        return Single(module)
    if name == "dp":
        return Replicated(module, workers)
    if name == "ddp":
        return Ranks(module, workers, retries)
    if name == "auto":
        return Measuring(module, workers, retries)
    raise UsageError(f"strategy must be one of {', '.join(map(repr, NAMES))}; not {name!r}")
