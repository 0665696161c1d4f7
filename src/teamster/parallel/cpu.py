# SPDX-License-Identifier: BSD-3-Clause
"""Steps 2 and 3 on CPU replicas: a graph and a thread each, over the memory of one module.

::

    apply   the graphs are joined in the caller's (autograd/backward.py)
    step    thread i:  loss_fn(replica i, slice i) * its share of the samples --> backward
            caller:    sums the gradients in the order of the replicas, leaves them on parameters

A step is faster than the drop-in form: the threads are told once a step and not twice, and no
output is put together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from time import perf_counter_ns, thread_time_ns
from typing import Any

import torch
from torch import nn

from teamster.parallel.applying import NotePhase, apply_all
from teamster.parallel.autograd.backward import apply_joined
from teamster.parallel.autograd.checkpoints import Recomputing, is_renormalised, looking
from teamster.parallel.autograd.gradients import deposit, sum_gradients, take_gradients
from teamster.parallel.calling import LossFunction
from teamster.parallel.criterion import check_loss, run_with_loss
from teamster.parallel.replicas import Replicas
from teamster.parallel.scattering import Chunk
from teamster.parallel.step_report import StepTimer
from teamster.parallel.thread_state import carry_all, is_hooked
from teamster.parallel.threads import DeviceThreads
from teamster.tensors.nest import walk


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
        >>> cpu = CpuReplicas(linear, 2, StepTimer())
        >>> device = torch.device("cpu")
        >>> chunks = [Chunk((torch.ones(size, 2),), {}, size, device) for size in (2, 1)]
        >>> outputs = cpu.apply(chunks, DeviceThreads([device] * 2, 1), None)
        >>> [tuple(output.shape) for output in outputs]
        [(2, 1), (1, 1)]
    """

    def __init__(self, module: nn.Module, count: int, timing: StepTimer) -> None:
        self._module = module
        self._count = count
        self._timing = timing
        self._recomputing = Recomputing()
        self.replicas: Replicas | None = None

    def apply(
        self,
        chunks: list[Chunk],
        threads: DeviceThreads,
        given: Any,
        loss: Callable[..., Any] | None = None,
    ) -> list[Any]:
        """A forward pass.

        Args:
            chunks: one a replica.
            threads: one a replica, too.
            given: what the chunks are slices of; None where that is not known.
            loss: a criterion in slices, of the last input; its values are the outputs then.

        Returns:
            The outputs, as functions of the module's parameters and the inputs.
        """
        replicas, modules = self._fresh(len(chunks))
        if not torch.is_grad_enabled():
            return self._run(
                modules, loss, threads, chunks, in_turn=is_hooked() or is_renormalised(self._module)
            )
        with self._recomputing.watch(self._module, replicas.built) as watch:
            self._timing.in_turn = watch.in_turn
            run = partial(self._run, modules, loss, threads, in_turn=watch.in_turn)
            outputs = apply_joined(
                run,
                chunks,
                replicas,
                threads,
                self._timing.note_phase,
                given=given,
                in_turn=watch.in_turn,
            )
            watch.look()
            return outputs

    def _run(
        self,
        modules: list[nn.Module],
        loss: Callable[..., Any] | None,
        threads: DeviceThreads,
        chunks: list[Chunk],
        *,
        in_turn: bool,
    ) -> list[Any]:
        runs: list[Any] = list(modules)
        if loss is not None:
            runs = [partial(run_with_loss, module, loss) for module in modules]
        inputs, kwargs = [each.inputs for each in chunks], [each.kwargs for each in chunks]
        devices, note_phase = [each.device for each in chunks], self._timing.note_phase
        return apply_all(runs, inputs, kwargs, devices, threads, note_phase, in_turn=in_turn)

    def step(
        self, loss_fn: LossFunction, chunks: list[Chunk], threads: DeviceThreads
    ) -> torch.Tensor:
        """Forward, loss and backward; see `run_step`.

        Args:
            loss_fn: takes a module and the slices, returns the slice's mean loss.
            chunks: one a replica.
            threads: one a replica, too.

        Returns:
            The whole batch's mean loss, without a graph.
        """
        replicas, modules = self._fresh(len(chunks))
        with self._recomputing.watch(self._module, replicas.built) as watch:
            self._timing.in_turn = watch.in_turn
            told = looking(loss_fn, watch)
            return run_step(
                told,
                chunks,
                modules,
                replicas,
                threads,
                self._timing.note_phase,
                in_turn=watch.in_turn,
            )

    def _fresh(self, count: int) -> tuple[Replicas, list[nn.Module]]:
        began = perf_counter_ns()
        if self.replicas is None:
            self.replicas = Replicas(self._module, self._count)
        modules = self.replicas.fresh(count)
        self._timing.note_phase("replicate", -1, began)
        return self.replicas, modules

    def tidy(self) -> None:
        """Put back what a failed pass has set on the replicas."""
        if self.replicas is not None:
            self.replicas.tidy()


def run_step(
    loss_fn: LossFunction,
    chunks: Sequence[Chunk],
    modules: Sequence[nn.Module],
    replicas: Replicas,
    threads: DeviceThreads,
    note_phase: NotePhase,
    *,
    in_turn: bool,
) -> torch.Tensor:
    """One step on CPU replicas.

    Args:
        loss_fn: takes a module and the slices, returns the slice's mean loss.
        chunks: one a replica.
        modules: the replicas, fresh ones.
        replicas: what made them.
        threads: theirs.
        note_phase: takes what the phases take.
        in_turn: whether one replica runs after the other.

    Returns:
        The whole batch's mean loss, without a graph.

    Raises:
        Exception: what a replica raised; no parameter's gradient has changed then.
    """
    samples = sum(chunk.size for chunk in chunks)
    carried = carry_all([chunk.device for chunk in chunks])
    jobs = []
    links: list[tuple[torch.Tensor, torch.Tensor]] = []
    for index, (chunk, module) in enumerate(zip(chunks, modules, strict=True)):
        share = chunk.size / samples if samples else 1.0
        inputs, kwargs = walk((chunk.inputs, chunk.kwargs), partial(_cut, links))
        own = replace(chunk, inputs=inputs, kwargs=kwargs)
        leaves = replicas.leaves[index]
        work = partial(_run_chunk, loss_fn, module, own, share, leaves, note_phase, index)
        jobs.append(partial(carried[index].run, work))
    found = threads.run(jobs, in_turn=in_turn, guard=replicas.turn)
    began = perf_counter_ns()
    sources = list(range(len(replicas.sources)))
    total = sum_gradients([(sources, grads) for _, grads in found], threads)
    deposit([(replicas.sources[index], grad) for index, grad in total.items()])
    _pass_on(links)
    replicas.tidy()
    note_phase("reduce", -1, began, 0)
    return torch.stack([loss for loss, _ in found]).sum()


def _cut(links: list[tuple[torch.Tensor, torch.Tensor]], tensor: torch.Tensor) -> torch.Tensor:
    """A leaf for a slice that has a graph: that graph is the caller's, and one thread's."""
    if not tensor.requires_grad:
        return tensor
    links.append((tensor, tensor.detach().requires_grad_()))
    return links[-1][1].clone()


def _pass_on(links: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    found = [(tensor, leaf.grad) for tensor, leaf in links if leaf.grad is not None]
    if found:
        torch.autograd.backward([tensor for tensor, _ in found], [grad for _, grad in found])


def _run_chunk(
    loss_fn: LossFunction,
    module: nn.Module,
    chunk: Chunk,
    share: float,
    leaves: Sequence[torch.Tensor],
    note_phase: NotePhase,
    index: int,
) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
    began, cpu_began = perf_counter_ns(), thread_time_ns()
    loss = check_loss(loss_fn(module, *chunk.inputs, **chunk.kwargs)) * share
    now, cpu_now = perf_counter_ns(), thread_time_ns()
    note_phase("forward", index, began, cpu_now - cpu_began)
    try:
        if loss.requires_grad:
            loss.backward()
    finally:
        grads = take_gradients(leaves)
    note_phase("backward", index, now, thread_time_ns() - cpu_now)
    return loss.detach(), grads
