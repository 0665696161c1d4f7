# SPDX-License-Identifier: BSD-3-Clause
"""What every strategy promises: it leaves the gradients of a whole batch on the parameters.

::

    Trainer.step --> Work --> strategy.run: forward, loss, backward of every slice --> losses
                                  |
                                  +--> the gradient of the batch's mean loss, times `scale`, added
                                       to the `grad` of the user's own parameters
    then, the same for all of them: update.py (scaler, clipping, optimizers)

To add one: a file with a class that has `run` and `close`, and a row in `__init__.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter_ns
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from teamster.errors import UsageError
from teamster.parallel.scattering import batch_size, batch_size_or_none
from teamster.spine.trace.ring import COMPUTE
from teamster.spine.trace.spans import current_ring, note
from teamster.train.strategies.rows import cut as cut_rows

Losses = dict[str | None, torch.Tensor]
"""By name; the only one, where the loss function returns a tensor, is called None."""

Weight = Callable[..., Any]
"""Of a slice, which it is called with: how much it counts. Must add up over slices."""


@dataclass(frozen=True, slots=True)
class Work:
    """Forward, loss and backward of one batch.

    Attributes:
        loss_fn: of a module and a slice, the mean loss of the slice.
        batch: positional arguments, to be sliced.
        kwargs: the same by name.
        weight: None to count samples.
        scale: what the gradients are multiplied with.
        autocast: the type that operations are done in, where they may; None for their own.
        number: of the step.
        seed: of random numbers; None where the program's own generators are left alone.
        is_own: whether these are one rank's rows already, of ranks that read their own.
        is_borrowed: whether they are another rank's, and count nothing.
    """

    loss_fn: Callable[..., Any]
    batch: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    weight: Weight | None = None
    scale: float = 1.0
    autocast: torch.dtype | None = None
    number: int = 0
    seed: int | None = None
    is_own: bool = False
    is_borrowed: bool = False

    def of(self, batch: tuple[Any, ...], kwargs: dict[str, Any]) -> Work:
        """The same for a slice."""
        return replace(self, batch=batch, kwargs=kwargs)

    def as_part_of(
        self, number: int, seed: int | None, scale: float, autocast: torch.dtype | None
    ) -> Work:
        """The same as a step of a training."""
        return replace(self, number=number, seed=seed, scale=scale, autocast=autocast)

    def cut(self, sizes: Sequence[int]) -> list[Work]:
        """The slices of so many rows, one behind the other.

        A list of as many texts or numbers as there are rows is one value a row.
        """
        return [self.of(*each) for each in cut_rows((self.batch, self.kwargs), sizes)]

    def count(self) -> float:
        """How much the batch counts: its samples, or what `weight` says.

        Raises:
            UsageError: the weight is no number.
        """
        if self.weight is None or self.is_borrowed:
            return self.rows()
        told = self.weight(*self.batch, **self.kwargs)
        try:
            return float(told)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"weight= must return how much a slice counts, one number; not {told!r}"
            ) from error

    def rows(self) -> float:
        """How many samples it has, as far as that can be told."""
        found = 0 if self.is_borrowed else self.rows_or_none()
        return 1.0 if found is None else float(found)

    def rows_or_none(self) -> int | None:
        """How many samples it has; None where that cannot be told."""
        return batch_size_or_none((self.batch, self.kwargs), 0)

    def samples(self) -> int:
        """How many rows can be shared out.

        Raises:
            UsageError: nothing in the batch can be sliced.
        """
        found = batch_size((self.batch, self.kwargs), 0)
        if found is None:
            raise UsageError(
                "the batch cannot be sliced: no tensor or array with a first dimension is among "
                "the arguments of step(); strategy='single' takes it as it is"
            )
        return found


class Strategy(Protocol):
    """One way to have the gradients of a batch.

    Attributes:
        name: as in `Trainer(strategy=...)`.
        workers: how many slices are computed at a time.
        differs: what is not as under "single", for people; empty where nothing is.
    """

    name: str

    @property
    def workers(self) -> int:
        """See above."""

    @property
    def differs(self) -> str:
        """See above."""

    def run(self, work: Work) -> Losses:
        """Add the gradients of a batch to the parameters.

        Returns:
            The mean losses of the whole batch, without a graph.
        """

    def update(self, apply: Callable[[], object]) -> None:
        """Have the optimizers take their step, with as many threads as the cores allow."""

    def close(self) -> None:
        """End what it has started; a later `run` starts it again."""


def run_slice(module: nn.Module, work: Work, share: float = 1.0) -> Losses:
    """Forward, loss and backward of one slice in this thread.

    Args:
        module: what the loss function gets.
        work: the slice.
        share: of it in the batch.

    Returns:
        The losses times `share`: those of all slices add up to the batch's.

    Raises:
        UsageError: the loss is not one number, or several by name.

    Example:
        >>> module = nn.Linear(2, 1)
        >>> work = Work(lambda module, x: module(x).mean(), (torch.ones(4, 2),))
        >>> run_slice(module, work)[None].shape, module.weight.grad.tolist()
        (torch.Size([]), [[1.0, 1.0]])
    """
    ring, began = current_ring(), perf_counter_ns()
    with autocast_of(work.autocast, module):
        losses = by_name(work.loss_fn(module, *work.batch, **work.kwargs))
    total = sum(losses.values())
    assert isinstance(total, torch.Tensor)
    note(ring, COMPUTE, "forward", began)
    if total.requires_grad:
        factor, began = share * work.scale, perf_counter_ns()
        (total if factor == 1.0 else total * factor).backward()
        note(ring, COMPUTE, "backward", began)
    detached = {name: loss.detach() for name, loss in losses.items()}
    return detached if share == 1.0 else {name: loss * share for name, loss in detached.items()}


def by_name(returned: Any) -> Losses:
    """What a loss function has returned, as losses by name.

    Raises:
        UsageError: that is no scalar, nor a dict of scalars.

    Example:
        >>> by_name({"a": torch.tensor(1.0)}), list(by_name(torch.tensor(2.0)))
        ({'a': tensor(1.)}, [None])
    """
    losses: Losses = returned if isinstance(returned, dict) and returned else {None: returned}
    for name, loss in losses.items():
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            told = (
                f"a tensor of shape {tuple(loss.shape)}"
                if isinstance(loss, torch.Tensor)
                else type(loss).__name__
            )
            which = "" if name is None else f" (under {name!r})"
            raise UsageError(
                f"the loss function must return the mean loss of its samples as one number, or a "
                f"dict of such; it has returned {told}{which}"
            )
    return {name: loss.reshape(()) for name, loss in losses.items()}


def has_statistics(module: nn.Module) -> bool:
    """Whether the rows of a batch are normalized together.

    Example:
        >>> has_statistics(nn.Linear(1, 1)), has_statistics(nn.BatchNorm1d(1))
        (False, True)
    """
    return bool(norms_of(module))


def norms_of(module: nn.Module) -> list[Any]:
    """The layers that normalize a batch.

    Example:
        >>> len(norms_of(nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2))))
        1
    """
    return [each for each in module.modules() if isinstance(each, _BatchNorm)]


def what_differs(module: nn.Module, unit: str, *, synchronized: bool = False) -> str:
    """What a module computes otherwise where its batches are shared out.

    Args:
        module: the user's.
        unit: "replica" or "rank".
        synchronized: whether statistics are those of the whole batch.

    Returns:
        For people; empty where nothing does.

    Example:
        >>> what_differs(nn.Linear(1, 1), "rank")
        ''
        >>> what_differs(nn.BatchNorm1d(1), "rank")
        "BatchNorm takes the statistics of each rank's rows"
    """
    parts = []
    if has_statistics(module) and not synchronized:
        parts.append(f"BatchNorm takes the statistics of each {unit}'s rows")
    if any(isinstance(each, nn.modules.dropout._DropoutNd) for each in module.modules()):
        parts.append(f"dropout draws anew in each {unit}")
    return ", and ".join(parts)


def device_of(module: nn.Module) -> torch.device:
    """Where a module is; one without parameters is on the CPU.

    Example:
        >>> device_of(nn.Identity())
        device(type='cpu')
    """
    return next((each.device for each in module.parameters()), torch.device("cpu"))


def autocast_of(dtype: torch.dtype | None, module: nn.Module) -> Any:
    """A context in which operations on the module's device are done in `dtype`, where they may."""
    if dtype is None:
        return contextlib.nullcontext()
    return torch.autocast(device_of(module).type, dtype)
