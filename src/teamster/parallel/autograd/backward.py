# SPDX-License-Identifier: BSD-3-Clause
"""Backward in parallel: CPU replicas with graphs and threads of their own, joined by a function.

::

    parameters, inputs ==detach==> leaves of replica i --> its graph --> outputs  (in thread i)
          |                                                                 |
          +-------------- Join (in the caller's graph) ---------------> outputs

On a CPU, one backward call runs in one thread, so a single graph through all replicas would run
them one after the other. `Join` runs them at once, then sums the gradients of each parameter in the
order of the replicas, so that results repeat bit for bit.

With ``create_graph=True`` the gradients have graphs themselves, over the same leaves: another
`Join` ties those to the parameters, the inputs and the gradients that came in, and so on to any
order.

The replicas' graphs live as long as the caller's: they hang on a saved tensor of `Join`, which
autograd lets go of with its own.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter_ns, thread_time_ns
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks

from teamster.errors import UsageError
from teamster.parallel.applying import NotePhase
from teamster.parallel.autograd.gradients import sum_gradients, take_gradients
from teamster.parallel.autograd.graphs import hooks_after, leaves_below, versions_of
from teamster.parallel.replicas import Replicas
from teamster.parallel.scattering import Chunk
from teamster.parallel.thread_state import carry_all, is_transformed
from teamster.parallel.threads import DeviceThreads
from teamster.tensors.nest import tensors_of, walk


@dataclass(slots=True)
class Part:
    """What one replica has computed.

    Attributes:
        outputs: tensors with a graph.
        leaves: where that graph begins.
        sources: for each leaf the number of the outer tensor that it stands for.
    """

    outputs: list[torch.Tensor]
    leaves: list[torch.Tensor]
    sources: list[int]


@dataclass(slots=True)
class Joined:
    """All parts, and what they hang together with."""

    parts: list[Part]
    outer: list[torch.Tensor]
    threads: DeviceThreads
    device: torch.device
    note_phase: NotePhase
    in_turn: bool
    """Whether one replica runs after the other, in the caller's thread."""
    guard: AbstractContextManager[object]
    """Held in a backward pass: several callers would write to the same leaves."""
    versions: list[tuple[weakref.ref[torch.Tensor], int]]
    """Of inputs when they were scattered: slices count what is written into them for themselves."""

    def join(self) -> list[torch.Tensor]:
        """The parts' outputs, one after the other, as functions of the outer tensors."""
        with saved_tensors_hooks(lambda _: self, _carry):  # the user's hooks are not for this one
            return list(Join.apply(self, *self.outer))

    def backward(self, grads: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
        """Gradients of the outer tensors."""
        for reference, version in self.versions:
            if (tensor := reference()) is not None and tensor._version != version:
                raise RuntimeError(
                    f"an input of shape {tuple(tensor.shape)} was written into between the forward "
                    "and the backward pass of a DataParallel, whose replicas may need what it was: "
                    "give it a copy, or write later"
                )
        if is_transformed() or any(
            grad is not None and torch._C._functorch.is_legacy_batchedtensor(grad) for grad in grads
        ):
            return self._batched(grads)
        return self._differentiable(grads) if torch.is_grad_enabled() else self._accumulate(grads)

    def _batched(self, grads: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
        """For ``is_grads_batched``, vectorized jacobians: one thread, no gradients on leaves."""
        if torch.is_grad_enabled():
            raise UsageError(
                "is_grads_batched goes through a DataParallel without create_graph=True only; use "
                "its module"
            )
        total: list[torch.Tensor | None] = [None] * len(self.outer)
        at = 0
        for part in self.parts:
            given = [
                (output, grad)
                for output, grad in zip(part.outputs, grads[at:], strict=False)
                if grad is not None
            ]
            at += len(part.outputs)
            outputs, leaves = [output for output, _ in given], part.leaves
            found = torch.autograd.grad(
                outputs, leaves, [grad for _, grad in given], retain_graph=True, allow_unused=True
            )
            for source, grad in zip(part.sources, found, strict=True):
                before = total[source]
                total[source] = (
                    before if grad is None else grad if before is None else before + grad
                )
        return total

    def _accumulate(self, grads: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
        carried = carry_all([self.device])[0]
        jobs, at = [], 0
        for index, part in enumerate(self.parts):
            given = grads[at : at + len(part.outputs)]
            jobs.append(
                partial(
                    carried.run,
                    partial(
                        _run_backward, part, given, partial(self.note_phase, "backward", index)
                    ),
                )
            )
            at += len(part.outputs)
        found = self.threads.run(jobs, in_turn=self.in_turn, guard=self.guard)
        began = perf_counter_ns()
        total = sum_gradients(
            [(part.sources, of_part) for part, of_part in zip(self.parts, found, strict=True)],
            self.threads,
        )
        self.note_phase("reduce", -1, began, 0)
        return [total.get(index) for index in range(len(self.outer))]

    def _differentiable(self, grads: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
        carried = carry_all([self.device])[0]
        parts, jobs, at = [], [], 0
        outer = list(self.outer)
        for part in self.parts:
            given = [
                (output, grad)
                for output, grad in zip(part.outputs, grads[at:], strict=False)
                if grad is not None
            ]
            at += len(part.outputs)
            leaves = [grad.detach().requires_grad_() for _, grad in given]
            jobs.append(
                partial(
                    carried.run,
                    partial(_run_grad, [output for output, _ in given], part.leaves, leaves),
                )
            )
            sources = [*part.sources, *range(len(outer), len(outer) + len(leaves))]
            outer += [grad for _, grad in given]
            parts.append(Part([], [*part.leaves, *leaves], sources))
        return self._tie(
            parts, outer, self.threads.run(jobs, in_turn=self.in_turn, guard=self.guard)
        )

    def _tie(
        self, parts: list[Part], outer: list[torch.Tensor], found: list[Any]
    ) -> list[torch.Tensor | None]:
        """Gradients with graphs over the leaves, as functions of the outer tensors."""
        for part, of_part in zip(parts, found, strict=True):
            part.outputs = [grad for grad in of_part if grad is not None and grad.requires_grad]
        tied = iter(replace(self, parts=parts, outer=outer).join())
        total: list[torch.Tensor | None] = [None] * len(self.outer)
        for part, of_part in zip(self.parts, found, strict=True):
            for source, grad in zip(part.sources, of_part, strict=True):
                if grad is not None:
                    whole = next(tied) if grad.requires_grad else grad
                    before = total[source]
                    total[source] = whole if before is None else before + whole
        return total


def apply_joined(
    run: Callable[[list[Chunk]], list[Any]],
    chunks: Sequence[Chunk],
    replicas: Replicas,
    threads: DeviceThreads,
    note_phase: NotePhase,
    *,
    given: Any,
    in_turn: bool,
) -> list[Any]:
    """Run the replicas, each with a graph of its own, and join these.

    Args:
        run: gives the output of each replica for its chunk.
        chunks: one a replica.
        replicas: fresh ones.
        threads: theirs.
        note_phase: takes what the phases take.
        given: what the chunks are of.
        in_turn: whether one replica's backward pass runs after the other's.

    Returns:
        The outputs, as functions of the module's parameters and the inputs.
    """
    outer: dict[int, int] = {id(each): index for index, each in enumerate(replicas.sources)}
    tensors, parts, cut = list(replicas.sources), [], []
    for index, chunk in enumerate(chunks):
        part = Part([], list(replicas.leaves[index]), list(range(len(replicas.sources))))
        inputs, kwargs = walk((chunk.inputs, chunk.kwargs), partial(_as_leaf, part, outer, tensors))
        cut.append(replace(chunk, inputs=inputs, kwargs=kwargs))
        parts.append(part)
    outputs = run(cut)
    replicas.tidy()
    versions = versions_of(given, chunks)
    for part, output in zip(parts, outputs, strict=True):
        part.outputs = [each for each in tensors_of(output) if each.requires_grad]
    if not any(part.outputs for part in parts):
        return outputs
    if any(
        tensor._backward_hooks or tensor.grad_fn is not None or hooks_after(tensor)
        for tensor in tensors
    ):
        tensors = _reached(parts, tensors)
    # Tensors that are not registered may be all that want gradients
    tensors.append(torch.empty(0, requires_grad=True))
    device, turn = chunks[0].device, replicas.turn
    joined = Joined(parts, tensors, threads, device, note_phase, in_turn, turn, versions)
    tied = iter(joined.join())
    return [
        walk(output, lambda each: next(tied) if each.requires_grad else each) for output in outputs
    ]


def _reached(parts: list[Part], tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """Those with a part in the outputs.

    Hooks of the others are not called, and what they came from gets no gradient of 0.
    """
    numbers: set[int] = set()
    for part in parts:
        found = leaves_below(part.outputs)
        if found is None:
            return tensors
        numbers |= {
            source
            for leaf, source in zip(part.leaves, part.sources, strict=True)
            if id(leaf) in found
        }
    kept = sorted(numbers)
    for part in parts:
        pairs = [
            (leaf, kept.index(source))
            for leaf, source in zip(part.leaves, part.sources, strict=True)
            if source in numbers
        ]
        part.leaves, part.sources = [leaf for leaf, _ in pairs], [source for _, source in pairs]
    return [tensors[number] for number in kept]


def _as_leaf(
    part: Part, outer: dict[int, int], tensors: list[torch.Tensor], tensor: torch.Tensor
) -> torch.Tensor:
    """An input that wants a gradient, as a leaf of a replica's graph, which may be written over."""
    if not tensor.requires_grad:
        return tensor
    if id(tensor) not in outer:
        outer[id(tensor)] = len(tensors)
        tensors.append(tensor)
    leaf = tensor.detach().requires_grad_()
    part.leaves.append(leaf)
    part.sources.append(outer[id(tensor)])
    return leaf.clone()


def _carry(joined: Joined) -> torch.Tensor:
    """Autograd gives back a tensor, and wants one."""
    token = torch.empty(0)
    token.joined = joined
    return token


class Join(torch.autograd.Function):  # type: ignore[misc]  # torch is not followed
    """The parts' outputs as functions of the outer tensors."""

    @staticmethod
    def forward(ctx: Any, joined: Joined, *outer: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Pass on what was computed."""
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(torch.empty(0))
        return tuple(output.detach() for part in joined.parts for output in part.outputs)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        """Run all replicas' backward passes."""
        (token,) = ctx.saved_tensors
        joined: Joined = token.joined
        return None, *joined.backward(grads)


def _run_backward(
    part: Part, grads: Sequence[torch.Tensor | None], note_phase: Callable[[int, int], None]
) -> list[torch.Tensor | None]:
    began, cpu_began = perf_counter_ns(), thread_time_ns()
    given = [
        (output, grad) for output, grad in zip(part.outputs, grads, strict=True) if grad is not None
    ]
    try:
        if given:
            # `backward` and not `grad`: tensors that the module holds without having registered
            # them get theirs, too.
            torch.autograd.backward(
                [output for output, _ in given], [grad for _, grad in given], retain_graph=True
            )
    finally:  # what a failed pass has left is not there in the next
        found = take_gradients(part.leaves)
    note_phase(began, thread_time_ns() - cpu_began)
    return found


def _run_grad(
    outputs: list[torch.Tensor], leaves: list[torch.Tensor], grads: list[torch.Tensor]
) -> Sequence[torch.Tensor | None]:
    if not outputs:
        return [None] * len(leaves)
    with torch.enable_grad():
        found: Sequence[torch.Tensor | None] = torch.autograd.grad(
            outputs, leaves, grads, create_graph=True, allow_unused=True
        )
    return found
