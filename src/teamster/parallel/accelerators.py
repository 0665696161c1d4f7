# SPDX-License-Identifier: BSD-3-Clause
"""Steps 2 and 3 with one graph through all replicas: on accelerators, or with a subclass's steps.

Replicas lead back to the module's own parameters, as torch's do; autograd has a thread for each
device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter_ns
from typing import Any

import torch
from torch import nn

from teamster.parallel.calling import LossFunction, ModuleCall
from teamster.parallel.criterion import check_loss, in_slices, run_with_loss
from teamster.parallel.replicas import replicate
from teamster.parallel.scattering import Chunk
from teamster.parallel.step_report import StepTimer


class OneGraph:
    """Runs replicas that are made anew for each pass.

    Args:
        module: the user's.
        device: where it is.
        timing: told what the phases take.

    Example:
        >>> from teamster.parallel.applying import parallel_apply
        >>> cpu = torch.device("cpu")
        >>> chunks = [Chunk((torch.ones(size, 2),), {}, size, cpu) for size in (2, 1)]
        >>> call = ModuleCall((torch.ones(3, 2),), {}, 0, cpu, {})
        >>> graph = OneGraph(nn.Linear(2, 1), cpu, StepTimer())
        >>> outputs = graph.apply(chunks, call, parallel_apply)
        >>> [tuple(output.shape) for output in outputs]
        [(2, 1), (1, 1)]
    """

    def __init__(self, module: nn.Module, device: torch.device, timing: StepTimer) -> None:
        self._module = module
        self._device = device
        self._timing = timing

    def apply(
        self, chunks: list[Chunk], call: ModuleCall, apply_here: Callable[..., Any]
    ) -> list[Any]:
        """A forward pass.

        Args:
            chunks: one a replica.
            call: of forward.
            apply_here: step 3 where no subclass has its own, as of `parallel_apply`.

        Returns:
            The outputs, as functions of the module's parameters and the inputs; losses in slices
            where the call has a criterion in slices.
        """
        runs: Any = self._replicate(chunks, call)  # as a subclass's own step 2 gives it to step 3
        if call.sliced is not None:
            losses = [self._loss_on(chunk.device, call) for chunk in chunks]
            runs = [partial(run_with_loss, *pair) for pair in zip(runs, losses, strict=True)]
        return _apply(runs, chunks, call, apply_here)

    def step(
        self,
        loss_fn: LossFunction,
        chunks: list[Chunk],
        call: ModuleCall,
        apply_here: Callable[..., Any],
    ) -> torch.Tensor:
        """Forward, loss and backward.

        Args:
            loss_fn: takes a module and the slices, returns the slice's mean loss.
            chunks: one a replica.
            call: of step.
            apply_here: as above.

        Returns:
            The whole batch's mean loss.
        """
        runs = [partial(loss_fn, module) for module in self._replicate(chunks, call)]
        return backward_of_all(_apply(runs, chunks, call, apply_here), chunks)

    def _replicate(self, chunks: list[Chunk], call: ModuleCall) -> Any:
        began = perf_counter_ns()
        here = partial(replicate, detach=not torch.is_grad_enabled())
        step: Callable[..., Any] = call.own.get("replicate", here)
        modules = step(self._module, [chunk.device for chunk in chunks])
        self._timing.note_phase("replicate", -1, began)
        return modules

    def _loss_on(self, device: torch.device, call: ModuleCall) -> Callable[..., Any]:
        """The criterion in slices, on a device."""
        moved = isinstance(call.criterion, nn.Module) and device != self._device
        found = in_slices(replicate(call.criterion, [device])[0]) if moved else call.sliced
        assert found is not None
        return found


def _apply(
    runs: Any, chunks: list[Chunk], call: ModuleCall, apply_here: Callable[..., Any]
) -> list[Any]:
    here = partial(apply_here, devices=[chunk.device for chunk in chunks])
    step: Callable[..., Any] = call.own.get("parallel_apply", here)
    inputs, kwargs = [chunk.inputs for chunk in chunks], [chunk.kwargs for chunk in chunks]
    outputs: list[Any] = step(runs, inputs, kwargs)
    return outputs


def backward_of_all(losses: Sequence[Any], chunks: Sequence[Chunk]) -> torch.Tensor:
    """Backward through one graph of all replicas.

    On accelerators autograd has a thread for each device.

    Args:
        losses: of the slices.
        chunks: these.

    Returns:
        The whole batch's mean loss.

    Raises:
        UsageError: a loss is not one number.

    Example:
        >>> chunks = [Chunk((), {}, size, torch.device("cpu")) for size in (3, 1)]
        >>> backward_of_all([torch.tensor(1.0), torch.tensor(5.0)], chunks).item()
        2.0
    """
    samples = sum(chunk.size for chunk in chunks) or 1
    device = chunks[0].device
    shares = [
        check_loss(loss).to(device) * (chunk.size / samples)
        for loss, chunk in zip(losses, chunks, strict=True)
    ]
    total = torch.stack(shares).sum()
    if total.requires_grad:
        total.backward()
    return total
