# SPDX-License-Identifier: BSD-3-Clause
"""Gradients that replicas have found: taken off their leaves, summed, left on parameters."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from teamster.parallel.threads import DeviceThreads

_SMALL_BYTES = 1 << 18  # less is summed faster here than by threads that have to be told


def take_gradients(leaves: Sequence[torch.Tensor]) -> list[torch.Tensor | None]:
    """What a backward pass has left on leaves, which have none afterwards.

    Args:
        leaves: of one replica.

    Returns:
        A gradient for each; None where it had no part in the result.

    Example:
        >>> leaf = torch.ones(2, requires_grad=True)
        >>> leaf.sum().backward()
        >>> take_gradients([leaf])[0].tolist(), leaf.grad
        ([1.0, 1.0], None)
    """
    found = [leaf.grad for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    return found


def sum_gradients(
    found: Sequence[tuple[Sequence[int], Sequence[torch.Tensor | None]]], threads: DeviceThreads
) -> dict[int, torch.Tensor]:
    """Sum what the replicas have found, in their order.

    Args:
        found: of each replica the numbers of the sources, and the gradients, which may be changed.
        threads: they sum, each a share of the sources.

    Returns:
        The sums by the number of the source.

    Example:
        >>> threads = DeviceThreads([torch.device("cpu")], None)
        >>> sum_gradients([([0], [torch.ones(1)]), ([0], [torch.ones(1)])], threads)
        {0: tensor([2.])}
    """
    total: dict[int, torch.Tensor] = {}
    for sources, grads in found:
        pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
        for source, grad in zip(sources, grads, strict=True):
            if grad is None:
                continue
            before = total.get(source)
            if before is None:
                total[source] = grad
            elif before.layout == grad.layout == torch.strided:
                pairs.append((before, grad))
            else:
                total[source] = add_any(before, grad)
        _add_all(pairs, threads, len(found))
    return total


def deposit(grads: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Add gradients to those of parameters, as a backward pass does, hooks included.

    Args:
        grads: parameters, and what to add to their gradients.

    Example:
        >>> weight = torch.zeros(1, requires_grad=True)
        >>> deposit([(weight, torch.ones(1))]); deposit([(weight, torch.ones(1))])
        >>> weight.grad
        tensor([2.])
    """
    summed: list[tuple[torch.Tensor, torch.Tensor]] = []
    graphed: list[tuple[torch.Tensor, torch.Tensor]] = []
    for source, grad in grads:
        if not source.is_leaf or source._backward_hooks or source._post_accumulate_grad_hooks:
            graphed.append((source, grad))
        elif source.grad is None:
            source.grad = grad
        elif grad.layout != torch.strided or source.grad.layout != torch.strided:
            source.grad = add_any(source.grad, grad)
        else:
            summed.append((source.grad, grad))
    if graphed:  # in one pass: they may share a graph
        torch.autograd.backward([source for source, _ in graphed], [grad for _, grad in graphed])
    if summed:
        with torch.no_grad():
            torch._foreach_add_([before for before, _ in summed], [grad for _, grad in summed])


def add_any(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The sum of two gradients of which one may be sparse, as an embedding's.

    Args:
        one: a gradient.
        other: another.

    Returns:
        Their sum; sparse where both are.

    Example:
        >>> add_any(torch.eye(2).to_sparse(), torch.ones(2, 2)).tolist()
        [[2.0, 1.0], [1.0, 2.0]]
    """
    # A sparse one adds to a dense one, and not the reverse
    return other + one if one.layout != torch.strided else one + other


def _add_all(
    pairs: list[tuple[torch.Tensor, torch.Tensor]], threads: DeviceThreads, shares: int
) -> None:
    """Add in place; large ones in all threads, each an equal part of the bytes."""
    total = sum(grad.nbytes for _, grad in pairs)
    if total < _SMALL_BYTES:
        _add(pairs)
        return
    flat = [
        pair
        for pair in pairs
        if pair[0].nbytes <= total // (2 * shares) or not _both_contiguous(pair)
    ]
    whole = {id(before) for before, _ in flat}
    groups: list[list[tuple[torch.Tensor, torch.Tensor]]] = [[] for _ in range(shares)]
    filled = [0] * shares
    for before, grad in pairs:
        if id(before) in whole:
            least = filled.index(min(filled))
            groups[least].append((before, grad))
            filled[least] += grad.nbytes
        else:  # one that is larger than a share is cut
            cuts = zip(
                before.view(-1).tensor_split(shares),
                grad.view(-1).tensor_split(shares),
                strict=True,
            )
            for group, cut in zip(groups, cuts, strict=True):
                group.append(cut)
    threads.run([partial(_add, group) for group in groups])


def _both_contiguous(pair: tuple[torch.Tensor, torch.Tensor]) -> bool:
    return bool(pair[0].is_contiguous() and pair[1].is_contiguous())


def _add(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    if pairs:
        with torch.no_grad():
            torch._foreach_add_([before for before, _ in pairs], [grad for _, grad in pairs])
