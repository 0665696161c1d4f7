# SPDX-License-Identifier: BSD-3-Clause
"""BatchNorm over the whole batch, while each replica or rank has some of its rows.

::

    forward:   n, sum of x, sum of x^2  of each slice --sum--> the batch's mean and variance
    backward:  sum of dy, sum of dy*x^  of each slice --sum--> the gradient of x in each

    a slice's last word: `leave`: it takes part with nothing until no slice has any sum left

The formulas are those of Ioffe and Szegedy, "Batch Normalization" (2015), section 3.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from teamster.errors import TeamsterError
from teamster.train.strategies.strategy import Losses, Work, norms_of, run_slice

SumAll = Callable[[torch.Tensor], torch.Tensor]
"""Adds up one message of each slice: doubles, of the same length for all."""

_HEAD = 2  # numbers in front of a message: who is still at work, and who has failed


class OtherFailed(TeamsterError):
    """This slice cannot go on, since another one has failed."""


class Together:
    """What one slice has of the sums over all slices, in one step.

    Args:
        sum_all: adds up the messages of all slices.
        channels: most that a layer has.
        device: where messages are.

    Example:
        >>> together = Together(torch.clone, 3)
        >>> together.sum(torch.tensor([1.0, 2.0])).tolist()
        [1.0, 2.0]
        >>> together.leave()
    """

    def __init__(self, sum_all: SumAll, channels: int, device: torch.device | str = "cpu") -> None:
        self._sum_all = sum_all
        self._length = _HEAD + 2 * channels + 1
        self._device = device

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Those of all slices.

        Args:
            values: of this one, at most two for each channel and one more.

        Raises:
            OtherFailed: one of the others has.
        """
        message = self._message()
        message[0] = 1.0
        message[_HEAD : _HEAD + len(values)] = values
        total = self._sum_all(message)
        if total[1]:
            raise OtherFailed("another slice of the batch has failed")
        return total[_HEAD : _HEAD + len(values)].to(values.device)

    def leave(self, *, failed: bool = False) -> None:
        """Nothing more comes from this slice; returns when nothing comes from any."""
        while True:
            message = self._message()
            message[1] = float(failed)
            if not self._sum_all(message)[0]:
                return

    def _message(self) -> torch.Tensor:
        return torch.zeros(self._length, dtype=torch.float64, device=self._device)


def channels_of(module: nn.Module) -> int:
    """Most that a layer has which normalizes a batch; 0 where none does.

    Example:
        >>> channels_of(nn.BatchNorm1d(3)), channels_of(nn.Linear(1, 1))
        (3, 0)
    """
    return max((int(each.num_features) for each in norms_of(module)), default=0)


def first_of(errors: list[BaseException]) -> BaseException | None:
    """The error that the others come from.

    Example:
        >>> first_of([OtherFailed("so"), ValueError("it")])
        ValueError('it')
    """
    own = [each for each in errors if not isinstance(each, OtherFailed)]
    return next(iter(own or errors), None)


def run_together(module: nn.Module, work: Work, share: float, together: Together | None) -> Losses:
    """As `run_slice`, with the statistics of all slices where they meet.

    Args:
        module: what the loss function gets.
        work: the slice.
        share: of it in the batch.
        together: where it meets the others; None where it does not.

    Raises:
        OtherFailed: one of the others has failed.
    """
    if together is None:
        return run_slice(module, work, share)
    try:
        with synchronized(norms_of(module), together):
            losses = run_slice(module, work, share)
    except BaseException:
        together.leave(failed=True)
        raise
    together.leave()
    return losses


@contextlib.contextmanager
def synchronized(norms: list[Any], together: Together) -> Iterator[None]:
    """In here these layers take the statistics of all slices, while they train."""
    try:
        for norm in norms:
            norm.forward = partial(_forward, norm, together)
        yield
    finally:
        for norm in norms:
            vars(norm).pop("forward", None)


def _forward(norm: Any, together: Together, x: torch.Tensor) -> torch.Tensor:
    if not (norm.training or norm.running_mean is None):
        found: torch.Tensor = type(norm).forward(norm, x)
        return found
    norm._check_input_dim(x)
    rows = x.numel() // x.shape[1]
    wide = torch.float64 if x.dtype is torch.float64 else torch.float32
    variance, mean = torch.var_mean(x.detach().to(wide), _dimensions(x), correction=0)
    mean, variance = mean.double(), variance.double()
    own = torch.cat([mean.new_full((1,), rows), rows * mean, rows * (variance + mean * mean)])
    count, *sums = together.sum(own).split([1, x.shape[1], x.shape[1]])
    mean = sums[0] / count
    variance = (sums[1] / count - mean * mean).clamp_(min=0.0)
    if norm.training and norm.track_running_stats:
        _keep(norm, mean, variance * (count / (count - 1).clamp(min=1.0)))
    scale = (variance + norm.eps).rsqrt()
    made: torch.Tensor = _Normalize.apply(
        x, norm.weight, norm.bias, mean.to(wide), scale.to(wide), count, together
    )
    return made


def _keep(norm: Any, mean: torch.Tensor, variance: torch.Tensor) -> None:
    """Have the running statistics follow, as the layer itself does."""
    with torch.no_grad():
        norm.num_batches_tracked.add_(1)
        share = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
        for running, new in ((norm.running_mean, mean), (norm.running_var, variance)):
            running.mul_(1 - share).add_(new.to(running.dtype), alpha=share)


def _dimensions(x: torch.Tensor) -> list[int]:
    return [each for each in range(x.ndim) if each != 1]


class _Normalize(torch.autograd.Function):  # type: ignore[misc]  # torch is not followed
    """The part that has a gradient; its sums meet those of the other slices, too."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        mean: torch.Tensor,
        scale: torch.Tensor,
        count: torch.Tensor,
        together: Together,
    ) -> torch.Tensor:
        shape = [1, -1] + [1] * (x.ndim - 2)
        normal = (x - mean.view(shape)) * scale.view(shape)
        ctx.save_for_backward(normal, weight, scale)
        ctx.count, ctx.together, ctx.shape = count, together, shape
        made = normal if weight is None else normal * weight.view(shape)
        return (made if bias is None else made + bias.view(shape)).to(x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        normal, weight, scale = ctx.saved_tensors
        grad, shape, dimensions = grads[0].to(normal.dtype), ctx.shape, _dimensions(normal)
        own = [grad.sum(dimensions), (grad * normal).sum(dimensions)]
        total = ctx.together.sum(torch.cat(own).double()) / ctx.count
        of_sum, of_normal = total.to(normal.dtype).chunk(2)
        inner = grad - of_sum.view(shape) - normal * of_normal.view(shape)
        factor = scale if weight is None else scale * weight
        wanted = ctx.needs_input_grad
        return (
            (inner * factor.view(shape)).to(grads[0].dtype) if wanted[0] else None,
            own[1] if wanted[1] else None,
            own[0] if wanted[2] else None,
            *[None] * 4,
        )
