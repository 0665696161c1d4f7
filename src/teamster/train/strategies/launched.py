# SPDX-License-Identifier: BSD-3-Clause
"""`ddp` where torchrun has started the ranks: each runs the whole script.

::

    rank 0: rows 0..15  --> forward, loss, backward --> all-reduce --> the same gradients in all
    rank 1: rows 16..31 -->                         -->            --> its own optimizer's step

Gradients are weighted by what a rank's rows count, so that uneven and empty slices are exact.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

import torch
from torch import nn

from teamster.parallel.scattering import chunk_sizes
from teamster.spine.trace.ring import COMPUTE
from teamster.spine.trace.spans import current_ring, note
from teamster.spine.workers.exceptions import describe
from teamster.train.strategies.batchnorm import (
    OtherFailed,
    Together,
    channels_of,
    run_together,
)
from teamster.train.strategies.rank import drawing_as
from teamster.train.strategies.strategy import Losses, Work, device_of, what_differs
from teamster.train.strategies.torch_blocks import raised_in
from teamster.train.strategies.world import World


class Launched:
    """This program's rank.

    Args:
        module: the user's; it takes the parameters and buffers of rank 0.
        world: the ranks.
        sync_batchnorm: whether BatchNorm has the statistics of the whole batch.
    """

    name = "ddp"
    borrows = False
    """Whether a rank without rows of a batch has to run the model all the same."""

    def __init__(self, module: nn.Module, world: World, *, sync_batchnorm: bool = False) -> None:
        self._module = module
        self.world = world
        self.workers = world.size
        self.rows_of_batch = 0.0
        """Of the latest, in all ranks."""
        self.differs = (
            what_differs(module, "rank", synchronized=sync_batchnorm) if self.workers > 1 else ""
        )
        self._device = device_of(module)
        channels = channels_of(module) if sync_batchnorm and self.workers > 1 else 0
        self._together = Together(self._sum_all, channels, self._device) if channels else None
        with torch.no_grad():
            for tensor in (*module.parameters(), *module.buffers()):
                world.broadcast(tensor.data)

    def rows(self, count: int) -> range:
        """Those of a batch that this rank computes."""
        sizes = chunk_sizes(count, self.workers)
        first = sum(sizes[: self.world.rank])
        return range(first, first + sizes[self.world.rank])

    def own(self, work: Work) -> Work | None:
        """This rank's slice of a batch that every rank has; None where it has no rows."""
        if work.is_own:
            return work if work.samples() else None
        sizes = [size for size in chunk_sizes(work.samples(), self.workers) if size]
        if self.world.rank >= len(sizes):
            return None
        mine: Work = work.cut(sizes)[self.world.rank]
        return mine

    def run(self, work: Work) -> Losses:
        """As every strategy; every rank calls it."""
        self.world.enter(work.number, "forward and backward")
        self.share_buffers()
        own, counts = self._shared_out(work)
        losses: Losses = {}
        error: Exception | None = None
        if own is not None:
            try:
                losses = self._run_own(own, counts[self.world.rank])
            except Exception as raised:
                error = raised
        elif self._together is not None:
            self._together.leave()
        self.world.enter(work.number, "all-reduce of gradients")
        began = perf_counter_ns()
        named = self._reduce(error, list(losses) != [None] and own is not None)
        note(current_ring(), COMPUTE, "reduce", began)
        return self._sum_losses(losses, all(counts) and not named)

    def _shared_out(self, work: Work) -> tuple[Work | None, list[float]]:
        """This rank's slice, and the share of the batch that each of the ranks has."""
        own, counted = None, (0.0, 0.0)
        error: Exception | None = None
        try:
            own = self.own(work)
            if own is not None:
                counted = own.count(), own.rows()
        except Exception as raised:
            error = raised
        counts, rows, failed = self._of_all_ranks(*counted, float(error is not None))
        if any(failed):
            self._raise(error)
        self.rows_of_batch, whole = sum(rows), sum(counts) or 1.0
        return own, [count / whole for count in counts]

    def _run_own(self, own: Work, share: float) -> Losses:
        with drawing_as(self.world.rank, own):  # what the script draws is the same in all ranks
            return run_together(self._module, own, share, self._together)

    def _sum_all(self, message: torch.Tensor) -> torch.Tensor:
        self.world.sum(message)
        return message

    def count(self, work: Work) -> float:
        """How much the batch counts of which a rank has some rows."""
        (counts,) = self._of_all_ranks(work.count() if work.rows_or_none() != 0 else 0.0)
        return sum(counts)

    def _of_all_ranks(self, *own: float) -> list[list[float]]:
        """For each number of this rank's, those of all."""
        numbers = torch.zeros(len(own), self.workers, dtype=torch.float64, device=self._device)
        numbers[:, self.world.rank] = torch.tensor(own, dtype=torch.float64)
        self.world.sum(numbers)
        found: list[list[float]] = numbers.tolist()
        return found

    def share_buffers(self) -> None:
        """Have those of rank 0 in all ranks: statistics of a BatchNorm."""
        with torch.no_grad():
            for buffer in self._module.buffers():
                self.world.broadcast(buffer)

    def _reduce(self, error: Exception | None, named: bool) -> bool:
        """Sum the gradients; whether a rank has losses by name."""
        parameters = list(self._module.parameters())
        grads = [each.grad for each in parameters]
        sparse = [grad is not None and grad.layout is not torch.strided for grad in grads]
        flags = torch.tensor(
            [
                error is not None,
                any(sparse),
                named,
                *(grad is not None for grad in grads),
            ],
            dtype=torch.uint8,
            device=self._device,
        )
        self.world.most(flags)
        failed, has_sparse, is_named, *there = flags.tolist()
        if failed:
            self._raise(error)
        if has_sparse:
            self._sum_sparse(parameters, sparse)
        dense = [
            each
            for each, grad, found in zip(parameters, grads, there, strict=True)
            if found and (grad is None or grad.layout is torch.strided)
        ]
        self._sum_dense(dense)
        return bool(is_named)

    def _sum_dense(self, parameters: list[Any]) -> None:
        by_type: dict[torch.dtype, list[Any]] = {}
        for each in parameters:
            by_type.setdefault(each.dtype, []).append(each)
        for found in by_type.values():
            grads = [torch.zeros_like(each) if each.grad is None else each.grad for each in found]
            flat = torch.cat([grad.reshape(-1) for grad in grads])
            self.world.sum(flat)
            parts = flat.split([grad.numel() for grad in grads])
            for each, part in zip(found, parts, strict=True):
                each.grad = part.view(each.shape)

    def _sum_sparse(self, parameters: list[Any], sparse: list[bool]) -> None:
        mine = {
            index: each.grad.coalesce()
            for index, (each, is_sparse) in enumerate(zip(parameters, sparse, strict=True))
            if is_sparse
        }
        totals: dict[int, torch.Tensor] = {}
        for theirs in self.world.gather(mine):
            for index, grad in theirs.items():
                totals[index] = totals[index] + grad if index in totals else grad
        for index, total in totals.items():
            parameters[index].grad = total.coalesce()

    def _raise(self, error: Exception | None) -> None:
        """What one of the ranks has raised, in all of them."""
        follows = isinstance(error, OtherFailed)
        told = self.world.gather(None if error is None or follows else describe(error))
        self._raise_first(None if follows else error, told)

    @staticmethod
    def _raise_first(error: Exception | None, told: list[Any]) -> None:
        """This rank's own error, or that of another one, if there is one."""
        if error is not None:
            raise error
        for rank, each in enumerate(told):
            if each is not None:
                raise raised_in(rank, each)

    def agree(self, call: str, first: Callable[[], object]) -> None:
        """Have each rank do something of its own before all do the rest of a call.

        Args:
            call: for people.
            first: which may fail in one of them.

        Raises:
            Exception: what it has raised in one of them.
        """
        error = None
        try:
            first()
        except Exception as raised:
            error = raised
        told = self.world.agree(call, None if error is None else describe(error))
        self._raise_first(error, told)

    def _sum_losses(self, losses: Losses, all_alike: bool) -> Losses:
        names = list(losses)
        if not all_alike:  # some rows have other losses, or a rank has no rows
            told = [name for each in self.world.gather(names) for name in each]
            names = list(dict.fromkeys(told)) or [None]
        values = torch.zeros(len(names), dtype=torch.float64, device=self._device)
        for index, name in enumerate(names):
            if name in losses:
                values[index] = losses[name]
        self.world.sum(values)
        kind = next((loss.dtype for loss in losses.values()), torch.float32)
        return {name: value.to(kind) for name, value in zip(names, values, strict=True)}

    def evaluating(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function of the module and other arguments, as each of the ranks is to call it."""
        return function

    def together(self) -> contextlib.AbstractContextManager[None]:
        """A block in which this rank's part of something is put together with the others'."""
        return contextlib.nullcontext()

    def settle(self) -> None:
        """Have the model as it is between two steps, whatever it has computed."""

    def update(self, apply: Callable[[], object]) -> None:
        """As every strategy; every rank does it for itself."""
        with self.together():
            apply()

    def close(self) -> None:
        """Leave the others."""
        self.world.close()
