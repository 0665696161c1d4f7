# SPDX-License-Identifier: BSD-3-Clause
"""What a trainer refuses before its first step, and what it says after that."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from teamster.errors import UsageError
from teamster.spine.plan.choice import is_count

_MOST_NAMES = 8  # in a message


def check_numbers(
    workers: int | None, accumulate: int, max_grad_norm: float | None, retries: int
) -> None:
    """Refuse numbers out of their range.

    Raises:
        UsageError: one is.

    Example:
        >>> check_numbers(2, 1, None, 1)
    """
    numbers: tuple[tuple[str, Any, int], ...] = (
        ("workers", 1 if workers is None else workers, 1),
        ("accumulate", accumulate, 1),
        ("retries", retries, 0),
    )
    for name, value, least in numbers:
        if not is_count(value, least):
            raise UsageError(f"{name}= must be a whole number of {least} or more; not {value!r}")
    if max_grad_norm is not None and not max_grad_norm > 0:
        raise UsageError(f"max_grad_norm= must be above 0, or None; not {max_grad_norm!r}")


def check_model(model: Any, optimizers: Any) -> None:
    """Refuse what is no module, and optimizers of something else.

    Raises:
        UsageError: it is so.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> check_model(model, [torch.optim.SGD(model.parameters())])
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"the model must be a torch.nn.Module; not {type(model).__name__}")
    listed = optimizers if isinstance(optimizers, (list, tuple)) else [None]
    if not all(isinstance(each, torch.optim.Optimizer) for each in listed):
        raise UsageError(
            "the optimizer must be a torch.optim.Optimizer, or a list of them; not "
            f"{type(optimizers).__name__}"
        )
    if any(isinstance(each, torch.optim.LBFGS) for each in listed):
        raise UsageError(
            "LBFGS computes the loss several times a step, which a trainer's step does not: use a "
            "loop of your own for it"
        )
    for name, each in model.named_parameters():
        if isinstance(each, nn.parameter.UninitializedParameter):
            raise UsageError(
                f"{name} has no shape yet: let the model see a batch once (a dry run) before the "
                "optimizer and the trainer are made"
            )


def check_schedulers(schedulers: Any) -> None:
    """Refuse what wants more than a step.

    Raises:
        UsageError: one does.

    Example:
        >>> check_schedulers(())
    """
    given = schedulers if isinstance(schedulers, (list, tuple)) else [schedulers]
    for each in given:
        if isinstance(each, torch.optim.lr_scheduler.ReduceLROnPlateau):
            raise UsageError(
                "scheduler= takes a step after each update, and ReduceLROnPlateau wants a measure: "
                "call its step() where you have one, and leave it out here"
            )


def check_optimizers(
    model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], strategy: str = "ddp"
) -> None:
    """Refuse parameters that other ranks do not have.

    Args:
        model: the user's.
        optimizers: of it.
        strategy: for the message.

    Raises:
        UsageError: an optimizer has one that is not the model's.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> check_optimizers(model, [torch.optim.SGD(model.parameters())])
    """
    known = {id(each) for each in model.parameters()}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if any(id(each) not in known for each in group["params"]):
                raise UsageError(
                    f"the optimizer has parameters that are not the model's, and {strategy!r} "
                    "computes gradients of the model's only: put all of them into one module"
                )


class ModelWatch:
    """Looks whether a model is still what its trainer began with, and still that trainer's.

    Args:
        model: the user's; it is the latest trainer's from now on.
        optimizers: of it.

    Attributes:
        parameters: of the model, as of the last look.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> first = ModelWatch(model, [torch.optim.SGD(model.parameters())])
        >>> second = ModelWatch(model, [torch.optim.SGD(model.parameters())])
        >>> second.look(1)
        >>> first.look(2)
        Traceback (most recent call last):
            ...
        teamster.errors.UsageError: another Trainer has this model since: use that one
    """

    def __init__(self, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self._model = weakref.ref(model)
        self.parameters = list(model.parameters())
        self._known = {id(each) for each in self.parameters}
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                self._known |= {id(each) for each in group["params"]}
        _watched[model] = weakref.ref(self)

    def look(self, step: int) -> None:
        """Before a step; at parameters in the first, second, fourth, eighth ... only.

        Raises:
            UsageError: another trainer has the model, or it has parameters that no optimizer has.
        """
        model = self._model()
        if model is None:
            return
        holder = _watched.get(model)
        if holder is not None and holder() is not self:
            raise UsageError("another Trainer has this model since: use that one")
        if step & (step - 1):
            return
        self.parameters = list(model.parameters())
        added = [
            name
            for name, each in model.named_parameters()
            if each.requires_grad and id(each) not in self._known
        ]
        if added:
            raise UsageError(
                f"{_listed(added)} came into the model after the trainer was made, and no "
                "optimizer has it: make the model complete first, then optimizer and trainer"
            )


_watched: weakref.WeakKeyDictionary[nn.Module, Any] = weakref.WeakKeyDictionary()


def note_parameters(model: nn.Module) -> None:
    """Say after the first step which parameters had no gradient, though they want one.

    Example:
        >>> note_parameters(nn.Identity())
    """
    unused = [
        name for name, each in model.named_parameters() if each.requires_grad and each.grad is None
    ]
    if unused:
        warnings.warn(
            f"no gradient for {_listed(unused)}: the loss does not depend on them; "
            "requires_grad_(False) on them saves the optimizer's memory",
            stacklevel=3,
        )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MOST_NAMES])
    return shown if len(names) <= _MOST_NAMES else f"{shown} and {len(names) - _MOST_NAMES} more"
