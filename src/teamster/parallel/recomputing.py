# SPDX-License-Identifier: BSD-3-Clause
"""Checkpoints that draw random numbers: their replicas take turns.

`torch.utils.checkpoint` runs a part of the module again in the backward pass, with the state that the generator of random numbers
had at first. torch has one such generator for all threads of a CPU: replicas that run at once draw from it in between, and would be
run again with other numbers than they had. So a module whose code makes checkpoints runs in turn until a pass has shown that it
draws no random numbers.
"""

from __future__ import annotations

import sys
import types
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from teamster.parallel.carried import is_hooked

_NAMES = {"checkpoint", "checkpoint_sequential", "checkpoint_fn", "_gradient_checkpointing_func"}
_known: weakref.WeakKeyDictionary[type, bool] = weakref.WeakKeyDictionary()


class Recomputing:
    """Whether a module's replicas may run at once, as far as it has shown.

    Example:
        >>> recomputing = Recomputing()
        >>> recomputing.is_in_turn(nn.Linear(2, 2))
        False
    """

    def __init__(self) -> None:
        self._draws: dict[bool, bool] = {}  # by whether the module trained

    def is_in_turn(self, module: nn.Module) -> bool:
        """Whether one replica has to run after the other.

        Args:
            module: the user's.

        Returns:
            True for one whose code makes checkpoints and that draws random numbers, or may do so; and where hooks on saved tensors
            are active.
        """
        return is_hooked() or (self._draws.get(module.training, True) and _makes_checkpoints(module))

    @contextmanager
    def watch(self, module: nn.Module) -> Iterator[None]:
        """Look whether a pass draws random numbers.

        Args:
            module: the user's.
        """
        if not _makes_checkpoints(module):
            yield
            return
        before = torch.get_rng_state()
        yield
        draws = not torch.equal(before, torch.get_rng_state())
        if draws and self._draws.get(module.training) is False:
            warnings.warn(
                "a module that makes checkpoints has begun to draw random numbers: the gradients of this step may be of other"
                " numbers than its outputs; from the next step on its replicas take turns",
                stacklevel=5,
            )
        self._draws[module.training] = draws or self._draws.get(module.training, False)


def _makes_checkpoints(module: nn.Module) -> bool:
    return any(_has_checkpoints(kind) for kind in {type(each) for each in module.modules()})


def _has_checkpoints(kind: type) -> bool:
    if (known := _known.get(kind)) is None:
        known = _known[kind] = _look_at(kind)
    return known


def _look_at(kind: type) -> bool:
    """Whether a method of a class names a checkpoint, or what the class's file knows as one under another name."""
    below = kind.__mro__[: kind.__mro__.index(nn.Module)] if nn.Module in kind.__mro__ else ()
    methods = [each for base in below for each in vars(base).values() if isinstance(each, types.FunctionType)]
    return any(_names_one(method.__code__, method.__globals__) for method in methods)


def _names_one(code: types.CodeType, known: dict[str, Any]) -> bool:
    module = sys.modules.get("torch.utils.checkpoint")
    ours = [getattr(module, name, None) for name in ("checkpoint", "checkpoint_sequential")]
    if any(name in _NAMES or any(known.get(name) is each is not None for each in ours) for name in code.co_names):
        return True
    return any(_names_one(inner, known) for inner in code.co_consts if isinstance(inner, types.CodeType))
