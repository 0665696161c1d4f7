# SPDX-License-Identifier: BSD-3-Clause
"""`dp`: replicas in threads of the program, by `teamster.parallel.DataParallel`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from teamster.errors import UsageError
from teamster.parallel.wrapper import DataParallel
from teamster.train.strategies.rows import has_lists
from teamster.train.strategies.strategy import Losses, Work, autocast_of, by_name, what_differs


class Replicated:
    """Replicas that share the parameters on CPUs, and have copies on accelerators.

    Args:
        module: the user's.
        workers: how many replicas; None for all accelerators.

    Example:
        >>> module = nn.Linear(2, 1)
        >>> strategy = Replicated(module, 2)
        >>> work = Work(lambda module, x: module(x).mean(), (torch.ones(4, 2),))
        >>> strategy.run(work)[None].shape, module.weight.grad.tolist()
        (torch.Size([]), [[1.0, 1.0]])
        >>> strategy.close()
    """

    name = "dp"

    def __init__(self, module: nn.Module, workers: int | None = None) -> None:
        # A compiled module cannot be copied: its replicas are of what was compiled
        plain = getattr(module, "_orig_mod", module)
        self._wrapper = DataParallel(plain, workers)
        self._wrapper._current().choosing.say_nothing()  # `auto` measures by itself
        self.workers = len(self._wrapper.device_ids)
        self.differs = what_differs(module, "replica") if self.workers > 1 else ""
        if plain is not module:
            self.differs = ", and ".join(
                filter(None, [self.differs, "replicas run without torch.compile"])
            )

    def run(self, work: Work) -> Losses:
        """As every strategy."""
        rows = work.samples()
        if self.workers > 1 and has_lists((work.batch, work.kwargs), rows):
            raise UsageError(
                f"a list of {rows} texts or numbers is in the batch of {rows} rows, and strategy "
                "'dp' cannot slice it: make a tensor of it, or take 'ddp' or 'single'"
            )
        summing = _Summing(work, rows)
        with autocast_of(work.autocast, self._wrapper.module):
            self._wrapper.step(summing.slice, *work.batch, **work.kwargs)
        return summing.losses

    def update(self, apply: Callable[[], object]) -> None:
        """As every strategy."""
        apply()

    def close(self) -> None:
        """End the threads."""
        self._wrapper.close()


class _Summing:
    """The losses of a batch out of those of its slices, which come from several threads.

    Args:
        work: of the batch.
        rows: of it: the wrapper weighs the losses of slices by theirs.
    """

    def __init__(self, work: Work, rows: int) -> None:
        self._work = work
        self._rows = rows
        self._whole = (work.count() if work.weight is not None else float(rows)) or 1.0
        self._parts: list[Losses] = []

    def slice(self, module: nn.Module, *batch: Any, **kwargs: Any) -> torch.Tensor:
        """What the wrapper is to go back from: the sum of the losses of a slice."""
        work = self._work.of(batch, kwargs)
        losses = by_name(work.loss_fn(module, *batch, **kwargs))
        share = work.count() / self._whole
        self._parts.append({name: loss.detach() * share for name, loss in losses.items()})
        total = sum(losses.values())
        assert isinstance(total, torch.Tensor)
        # The wrapper counts rows
        factor = work.scale
        if work.weight is not None:
            factor *= share * self._rows / max(1, work.samples())
        return total if factor == 1.0 else total * factor

    @property
    def losses(self) -> Losses:
        """Those of the whole batch, when all slices are done."""
        losses: Losses = {}
        for part in self._parts:
            for name, loss in part.items():
                losses[name] = (
                    losses[name] + loss.to(losses[name].device) if name in losses else loss
                )
        return losses
