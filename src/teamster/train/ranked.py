# SPDX-License-Identifier: BSD-3-Clause
"""The part of a trainer that knows of other ranks, which torchrun has started."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn

from teamster.train.saving import Saver
from teamster.train.strategies.launched import Launched
from teamster.train.strategies.strategy import Strategy
from teamster.train.strategies.world import World


class Ranked:
    """What `Trainer` has of it.

    Attributes:
        model: the user's.
    """

    model: nn.Module
    _strategy: Strategy
    _saver: Saver

    @property
    def _launched(self) -> Launched | None:
        return self._strategy if isinstance(self._strategy, Launched) else None

    @property
    def _world(self) -> World | None:
        return None if self._launched is None else self._launched.world

    @property
    def is_main(self) -> bool:
        """Whether this program is the only one, or rank 0.

        Example:
            >>> import torch
            >>> from teamster.train import Trainer
            >>> model = nn.Linear(1, 1)
            >>> with Trainer(model, torch.optim.SGD(model.parameters()), "single") as trainer:
            ...     trainer.is_main
            True
        """
        return self._world is None or self._world.rank == 0

    @contextlib.contextmanager
    def _parts_together(self, call: str) -> Iterator[None]:
        """A block in which the parts that ranks have are put together, if they have any."""
        launched = self._launched
        if launched is None or not launched.borrows:
            yield
            return
        launched.agree(call, self._saver.wait)
        with launched.together():
            yield

    @contextlib.contextmanager
    def main_first(self) -> Iterator[None]:
        """A block that rank 0 runs before the others do, as for a download.

        Example:
            >>> import torch
            >>> from teamster.train import Trainer
            >>> model = nn.Linear(1, 1)
            >>> trainer = Trainer(model, torch.optim.SGD(model.parameters()), "single")
            >>> with trainer.main_first():
            ...     pass
            >>> trainer.close()
        """
        if not self.is_main:
            self.gather(None)
        try:
            yield
        finally:
            if self.is_main:
                self.gather(None)

    def gather(self, value: Any) -> list[Any]:
        """What each of the ranks has; of one program, its own.

        Args:
            value: what pickles.

        Returns:
            One a rank, in their order.

        Example:
            >>> import torch
            >>> from teamster.train import Trainer
            >>> model = nn.Linear(1, 1)
            >>> with Trainer(model, torch.optim.SGD(model.parameters()), "single") as trainer:
            ...     trainer.gather(3)
            [3]
        """
        return [value] if self._world is None else self._world.gather(value)
