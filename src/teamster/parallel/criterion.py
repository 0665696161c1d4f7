# SPDX-License-Identifier: BSD-3-Clause
"""A loss in slices: each device computes its own, and together they are that of the whole batch.

::

    mean over samples --> sum of each slice, and how much it counts --> sum of sums / sum of counts

What counts is what the criterion's mean divides by: the weights of targets that are not ignored,
elements, or samples.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from teamster.errors import UsageError

_BY_CLASS = (nn.CrossEntropyLoss, nn.NLLLoss)
_BY_ELEMENT = (
    nn.MSELoss,
    nn.L1Loss,
    nn.SmoothL1Loss,
    nn.HuberLoss,
    nn.BCELoss,
    nn.BCEWithLogitsLoss,
    nn.KLDivLoss,
    nn.PoissonNLLLoss,
    nn.SoftMarginLoss,
)


def in_slices(
    criterion: Callable[..., torch.Tensor],
) -> Callable[..., tuple[torch.Tensor, torch.Tensor]] | None:
    """A criterion that tells how much its result counts.

    Args:
        criterion: a loss module or function.

    Returns:
        A function of outputs and targets that returns a sum and a count; the whole batch's loss is
        the sum of sums divided by the sum of counts. None for a criterion of which it is unknown
        what its mean is over.

    Raises:
        UsageError: it gives no single loss.

    Example:
        >>> loss = in_slices(nn.CrossEntropyLoss(ignore_index=0))
        >>> total, count = loss(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
        >>> round((total / count).item(), 4), count.item()
        (0.6931, 2)
    """
    criterion = _as_module(criterion)
    reduction = getattr(criterion, "reduction", "mean")
    if reduction == "none":
        raise UsageError(
            "loss= needs a criterion with reduction 'mean' or 'sum'; 'none' gives no single loss"
        )
    if getattr(criterion, "weight", None) is not None and not _is_one_of(criterion, _BY_CLASS):
        return None  # of a batch, sample by sample
    if _is_one_of(criterion, (*_BY_CLASS, *_BY_ELEMENT)) and reduction == "sum":
        return lambda outputs, targets: (criterion(outputs, targets), torch.ones(()))
    if _is_one_of(criterion, _BY_CLASS):
        return _summed(criterion, _count_targets)
    if _is_one_of(criterion, _BY_ELEMENT) and reduction == "mean":
        return _summed(
            criterion,
            lambda _, outputs, targets: float(
                torch.broadcast_shapes(outputs.shape, targets.shape).numel()
            ),
        )
    return None


_KINDS: tuple[tuple[Any, type[nn.Module]], ...] = (
    (functional.cross_entropy, nn.CrossEntropyLoss),
    (functional.nll_loss, nn.NLLLoss),
    (functional.mse_loss, nn.MSELoss),
    (functional.l1_loss, nn.L1Loss),
    (functional.smooth_l1_loss, nn.SmoothL1Loss),
)


def _as_module(criterion: Any) -> Any:
    """The class of a function of torch's, with what a partial gives it."""
    function, keywords = criterion, {}
    if isinstance(criterion, partial) and not criterion.args:
        function, keywords = criterion.func, criterion.keywords
    kind = next((kind for known, kind in _KINDS if known is function), None)
    try:
        return criterion if kind is None else kind(**keywords)
    except TypeError:  # the function takes more than the class
        return criterion


def whole_loss(
    criterion: Any, found: list[tuple[torch.Tensor, torch.Tensor]], device: torch.device
) -> torch.Tensor:
    """Put the losses of slices together.

    Args:
        criterion: the user's.
        found: sum and count of each slice.
        device: where the result is to be.

    Returns:
        The loss of the whole batch.

    Example:
        >>> found = [(torch.tensor(2.0), torch.tensor(1)), (torch.tensor(4.0), torch.tensor(2))]
        >>> whole_loss(nn.MSELoss(), found, torch.device("cpu"))
        tensor(2.)
    """
    sums = torch.stack([total.to(device) for total, _ in found]).sum()
    if getattr(_as_module(criterion), "reduction", "mean") == "sum":
        return sums
    return sums / torch.stack([count.to(device) for _, count in found]).sum().to(sums.dtype)


def check_loss(loss: Any) -> torch.Tensor:
    """Refuse what is no loss.

    Args:
        loss: what the user's function has returned.

    Returns:
        The same.

    Raises:
        UsageError: it is not a tensor with one element.

    Example:
        >>> check_loss(torch.tensor(1.0)).item()
        1.0
    """
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
        what = (
            f"a tensor of shape {tuple(loss.shape)}"
            if isinstance(loss, torch.Tensor)
            else f"{type(loss).__name__}"
        )
        raise UsageError(
            "the loss function of step() must return one number as a tensor, the mean over its "
            f"slice; not {what}"
        )
    return loss.reshape(())


def _is_one_of(criterion: Any, kinds: tuple[type, ...]) -> bool:
    """Whether it is one of torch's, and computes as those do.

    A subclass may take its mean in its own way.
    """
    return any(
        isinstance(criterion, kind) and type(criterion).forward is kind.forward  # type: ignore[attr-defined]
        for kind in kinds
    )


def _summed(
    criterion: Any, count: Callable[[Any, Any, Any], Any]
) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    def summed(outputs: Any, targets: Any) -> tuple[torch.Tensor, torch.Tensor]:
        whole = copy.copy(criterion)  # as it is now: its settings may change
        whole.reduction = "sum"
        return whole(_wide(outputs), _wide(targets)), torch.as_tensor(
            count(criterion, outputs, targets)
        )

    return summed


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    """A sum over a slice is too large for half precision, where the mean is not."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _count_targets(criterion: Any, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    if targets.is_floating_point():  # probabilities of classes: the mean is over samples
        return torch.tensor(float(targets.numel() // targets.shape[1 if targets.ndim > 1 else 0]))
    kept = targets != criterion.ignore_index
    if criterion.weight is None:
        return kept.sum()
    weights = functional.embedding(
        targets.masked_fill(~kept, 0).reshape(-1), criterion.weight[:, None]
    ).reshape(targets.shape)
    return (weights * kept).sum()


def run_with_loss(module: nn.Module, loss: Callable[..., Any], *inputs: Any, **kwargs: Any) -> Any:
    """A replica's loss: the last of its inputs is the target."""
    return loss(module(*inputs[:-1], **kwargs), inputs[-1])
