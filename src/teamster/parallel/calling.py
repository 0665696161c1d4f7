# SPDX-License-Identifier: BSD-3-Clause
"""What a `DataParallel` was called with, on its way through the steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from teamster.parallel.criterion import run_with_loss
from teamster.parallel.scattering import Chunk

Steps = Mapping[str, Callable[..., Any]]
"""Some of the four, by their names."""

LossFunction = Callable[..., torch.Tensor]
"""Takes a module and its slices, returns the mean loss of these."""


class ModuleCall(NamedTuple):
    """One call, of forward or of step.

    Attributes:
        inputs: positional arguments.
        kwargs: keyword arguments.
        dim: along which samples are counted.
        output_device: where the result is to be.
        own: steps that a subclass has in its own way, by their names.
        criterion: of the module's output and the last input; None where the output is asked for.
        sliced: the same, as `in_slices` has it.

    Example:
        >>> call = ModuleCall((torch.arange(2),), {}, 0, torch.device("cpu"), {})
        >>> call.run(nn.Identity()).tolist()
        [0, 1]
    """

    inputs: tuple[Any, ...]
    kwargs: dict[str, Any]
    dim: int
    output_device: torch.device
    own: Steps
    criterion: Callable[..., torch.Tensor] | None = None
    sliced: Callable[..., Any] | None = None

    def run(self, module: nn.Module) -> Any:
        """Call the plain module.

        Args:
            module: on the device of the inputs.

        Returns:
            Its output, or the loss.
        """
        if self.criterion is None:
            return module(*self.inputs, **self.kwargs)
        return run_with_loss(module, self.criterion, *self.inputs, **self.kwargs)

    @property
    def replicates(self) -> bool:
        """Whether a subclass replicates or applies in its own way: with one graph through all."""
        return "replicate" in self.own or "parallel_apply" in self.own

    def of(self, chunk: Chunk) -> ModuleCall:
        """The same with a slice of the inputs.

        Args:
            chunk: of it.

        Returns:
            Another call.
        """
        return self._replace(inputs=chunk.inputs, kwargs=chunk.kwargs)
