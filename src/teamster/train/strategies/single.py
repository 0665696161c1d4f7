# SPDX-License-Identifier: BSD-3-Clause
"""`single`: the module as it is, in the program's own thread."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from teamster.train.strategies.strategy import Losses, Work, run_slice
from teamster.train.strategies.threads_inside import inner_threads


class Single:
    """The plain loop; with a number of inner threads where one was chosen.

    Args:
        module: the user's.
        threads: inner ones of torch; None for those that the program has.

    Example:
        >>> Single(nn.Linear(1, 1)).workers
        1
    """

    name = "single"
    workers = 1
    differs = ""

    def __init__(self, module: nn.Module, threads: int | None = None) -> None:
        self._module = module
        self._threads = threads

    def run(self, work: Work) -> Losses:
        """As every strategy."""
        if self._threads is None:
            return run_slice(self._module, work)
        with inner_threads(self._threads):
            return run_slice(self._module, work)

    def update(self, apply: Callable[[], object]) -> None:
        """As every strategy."""
        if self._threads is None:
            apply()
            return
        with inner_threads(self._threads):
            apply()

    def close(self) -> None:
        """Nothing was started."""
