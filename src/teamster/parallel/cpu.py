# SPDX-License-Identifier: BSD-3-Clause
"""Steps 2 and 3 on CPU replicas: each has a graph and a thread of its own, over the memory of one module's parameters."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter_ns
from typing import Any

import torch
from torch import nn

from teamster.parallel.applying import apply_all
from teamster.parallel.autograd.backward import apply_joined
from teamster.parallel.autograd.checkpoints import Recomputing, is_renormalised, looking
from teamster.parallel.criterion import run_with_loss
from teamster.parallel.replicas import Replicas
from teamster.parallel.scattering import Piece
from teamster.parallel.step_report import Timing
from teamster.parallel.stepping import LossFunction, run_step
from teamster.parallel.thread_state import is_hooked
from teamster.parallel.threads import DeviceThreads


class CpuReplicas:
    """Runs the replicas of one module, which are kept from pass to pass.

    Args:
        module: the user's.
        count: how many there are at first; more are made when they are needed.
        timing: told what the phases take.

    Attributes:
        replicas: None before the first pass.

    Example:
        >>> linear = nn.Linear(2, 1)
        >>> cpu = CpuReplicas(linear, 2, Timing())
        >>> pieces = [Piece((torch.ones(size, 2),), {}, size, torch.device("cpu")) for size in (2, 1)]
        >>> outputs = cpu.apply(pieces, DeviceThreads([torch.device("cpu")] * 2, 1), None)
        >>> [tuple(output.shape) for output in outputs]
        [(2, 1), (1, 1)]
    """

    def __init__(self, module: nn.Module, count: int, timing: Timing) -> None:
        self._module = module
        self._count = count
        self._timing = timing
        self._recomputing = Recomputing()
        self.replicas: Replicas | None = None

    def apply(self, pieces: list[Piece], threads: DeviceThreads, given: Any, loss: Callable[..., Any] | None = None) -> list[Any]:
        """A forward pass.

        Args:
            pieces: one a replica.
            threads: one a replica, too.
            given: what the pieces are slices of; None where nobody knows.
            loss: a criterion in slices, of the last input; its values are the outputs then.

        Returns:
            The outputs, as functions of the module's parameters and the inputs.
        """
        replicas, modules = self._fresh(len(pieces))
        if not torch.is_grad_enabled():
            return self._run(modules, loss, threads, pieces, in_turn=is_hooked() or is_renormalised(self._module))
        with self._recomputing.watch(self._module, replicas.built) as watch:
            self._timing.in_turn = watch.in_turn
            run = partial(self._run, modules, loss, threads, in_turn=watch.in_turn)
            outputs = apply_joined(run, pieces, replicas, threads, self._timing.tell, given=given, in_turn=watch.in_turn)
            watch.look()
            return outputs

    def _run(
        self,
        modules: list[nn.Module],
        loss: Callable[..., Any] | None,
        threads: DeviceThreads,
        pieces: list[Piece],
        *,
        in_turn: bool,
    ) -> list[Any]:
        runs: list[Any] = modules if loss is None else [partial(run_with_loss, module, loss) for module in modules]
        inputs, kwargs, devices = zip(*((piece.inputs, piece.kwargs, piece.device) for piece in pieces), strict=True)
        return apply_all(runs, inputs, kwargs, list(devices), threads, self._timing.tell, in_turn=in_turn)

    def step(self, loss_fn: LossFunction, pieces: list[Piece], threads: DeviceThreads) -> torch.Tensor:
        """Forward, loss and backward; see `run_step`.

        Args:
            loss_fn: takes a module and the slices, returns the slice's mean loss.
            pieces: one a replica.
            threads: one a replica, too.

        Returns:
            The whole batch's mean loss, without a graph.
        """
        replicas, modules = self._fresh(len(pieces))
        with self._recomputing.watch(self._module, replicas.built) as watch:
            self._timing.in_turn = watch.in_turn
            told = looking(loss_fn, watch)
            return run_step(told, pieces, modules, replicas, threads, self._timing.tell, in_turn=watch.in_turn)

    def _fresh(self, count: int) -> tuple[Replicas, list[nn.Module]]:
        began = perf_counter_ns()
        if self.replicas is None:
            self.replicas = Replicas(self._module, self._count)
        modules = self.replicas.fresh(count)
        self._timing.tell("replicate", -1, began)
        return self.replicas, modules

    def tidy(self) -> None:
        """Put back what a failed pass has set on the replicas."""
        if self.replicas is not None:
            self.replicas.tidy()
