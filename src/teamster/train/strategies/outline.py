# SPDX-License-Identifier: BSD-3-Clause
"""What a module is apart from its numbers, and what a loss function takes of it by itself.

A rank has a copy of the module. Numbers are in memory that all ranks have in common; whatever else
a program changes has to be sent anew, or refused where it cannot be.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from teamster.errors import UsageError

_PLAIN = (int, float, bool, str, bytes, type(None), torch.dtype, torch.device)
_TORCHS_OWN = frozenset(vars(nn.Module())) - {
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_modules",
}


def outline_of_modules(modules: Sequence[nn.Module]) -> list[Any]:
    """What of modules is no number and no flag of training; two that are equal mean the same.

    Args:
        modules: all of a model.

    Returns:
        Values that compare, and identities.

    Example:
        >>> module = nn.Dropout(0.5)
        >>> before = outline_of_modules([module])
        >>> module.p = 0.1
        >>> before == outline_of_modules([module])
        False
    """
    found: list[Any] = []
    for module in modules:
        found.append(type(module))
        for name, value in module.__dict__.items():
            if name in _TORCHS_OWN or isinstance(value, torch.Tensor):
                continue  # a tensor may be left by a forward pass
            found.append(name)
            if isinstance(value, _PLAIN):
                found.append(value)
            elif isinstance(value, dict):
                found += (*value, *map(id, value.values()))
            elif type(value) is tuple and all(isinstance(each, _PLAIN) for each in value):
                found.append(value)
            else:
                found.append(id(value))
    return found


def check_parameters(model: nn.Module) -> None:
    """Refuse hooks on parameters, which do not travel.

    Raises:
        UsageError: there is one.

    Example:
        >>> check_parameters(nn.Linear(1, 1))
    """
    for name, each in model.named_parameters():
        if each._backward_hooks or getattr(each, "_post_accumulate_grad_hooks", None):
            raise UsageError(
                f"{name} has a hook, which ranks in other processes would not have: take strategy "
                "'dp' or 'single', or work on the gradients of the whole batch between the steps"
            )


def check_loss_function(function: Callable[..., Any], model: nn.Module) -> None:
    """Refuse a function that uses the model itself, where replicas are given to it.

    Raises:
        UsageError: it does.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> check_loss_function(lambda module, x: module(x).mean(), model)
        >>> check_loss_function(lambda _, x: model(x).mean(), model)
        Traceback (most recent call last):
            ...
        teamster.errors.UsageError: the loss function uses the model itself ('model'), ...
    """
    for name, value in _named_in(function):
        if value is model or (
            isinstance(value, torch.Tensor) and any(value is each for each in model.parameters())
        ):
            raise UsageError(
                f"the loss function uses the model itself ({name!r}), and each rank has its own: "
                "use the module that is its first argument"
            )


def _named_in(function: Any) -> Iterator[tuple[str, Any]]:
    """What the code of a function names from around it."""
    while isinstance(function, functools.partial):
        yield from ((f"argument {index}", each) for index, each in enumerate(function.args))
        yield from function.keywords.items()
        function = function.func
    if isinstance(function, types.MethodType):
        function = function.__func__
    if not isinstance(function, types.FunctionType):
        return
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield name, cell.cell_contents
        except ValueError:  # it is set later
            continue
    for name in function.__code__.co_names:
        if name in function.__globals__:
            yield name, function.__globals__[name]
