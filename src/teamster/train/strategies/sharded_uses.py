# SPDX-License-Identifier: BSD-3-Clause
"""Which parameters of a sharded model have a gradient in a step.

torch gives all of them one: zeros, where no rank's rows have used a parameter. An optimizer with a
momentum would move it all the same, which it does not where there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


class Uses:
    """Notes gradients of whole parameters, which are there only while their unit computes.

    Args:
        module: sharded.
        units: of it, that are gathered by themselves.

    Attributes:
        flags: of each parameter in the module's order, whether it has had a gradient in this rank.
    """

    def __init__(self, module: nn.Module, units: Sequence[nn.Module]) -> None:
        self._parameters: list[torch.Tensor] = list(module.parameters())
        self.flags = [0] * len(self._parameters)
        numbers = {id(each): number for number, each in enumerate(self._parameters)}
        self._places = {
            each: [
                (name, numbers[id(part)])
                for name, part in each._parameters.items()
                if part is not None
            ]
            for each in module.modules()
        }
        self._watched: dict[int, torch.Tensor] = {}  # those that are whole
        for each in units:
            each.register_forward_pre_hook(lambda unit, _: self.watch(unit))

    def watch(self, unit: nn.Module) -> None:
        """A unit has gathered its parameters."""
        for module in unit.modules():
            for name, number in self._places.get(module, ()):
                whole = module._parameters[name]
                if whole is None or not whole.requires_grad or id(whole) in self._watched:
                    continue
                if not hasattr(whole, "full_tensor"):  # else it is a part, of another unit
                    self._watched[id(whole)] = whole  # the same one in each step
                    whole.register_hook(self._noting(number))

    def _noting(self, number: int) -> Any:
        def note(_: torch.Tensor) -> None:
            self.flags[number] = 1

        return note

    def clear(self) -> None:
        """A step begins."""
        self.flags = [0] * len(self._parameters)

    def drop_gradients(self, used: Sequence[int]) -> None:
        """Have no gradient where no rank has any.

        Args:
            used: the flags of all ranks together.
        """
        for parameter, flag in zip(self._parameters, used, strict=True):
            if not flag:
                parameter.grad = None
