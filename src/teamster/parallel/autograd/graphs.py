# SPDX-License-Identifier: BSD-3-Clause
"""What autograd knows of tensors: the leaves below them, their versions, their hooks."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch

from teamster.parallel.scattering import Chunk
from teamster.tensors.nest import tensors_of


def versions_of(given: Any, chunks: Sequence[Chunk]) -> list[tuple[weakref.ref[torch.Tensor], int]]:
    """Of the tensors that were sliced.

    What a replica has written into its slice counts for the whole, too.

    Args:
        given: inputs; None where it is not known what the chunks are of.
        chunks: of them.

    Returns:
        The tensors, and how often each was written into.

    Example:
        >>> versions_of((), [])
        []
    """
    found: dict[int, torch.Tensor] = {}
    if given is None:
        return []
    originals = tensors_of(given)
    for chunk in chunks:
        for original, part in zip(originals, tensors_of((chunk.inputs, chunk.kwargs)), strict=True):
            if part is original or original.requires_grad or original.is_inference():
                continue
            found[id(original)] = original
            if part._version:
                torch.autograd.graph.increment_version(original)
    return [(weakref.ref(each), each._version) for each in found.values()]


def hooks_after(tensor: torch.Tensor) -> bool:
    """Whether hooks wait for the gradient of a leaf.

    Args:
        tensor: any.

    Returns:
        False for what is no leaf.

    Example:
        >>> hooks_after(torch.ones(1))
        False
    """
    return bool(tensor.is_leaf and tensor._post_accumulate_grad_hooks)


def leaves_below(outputs: list[torch.Tensor]) -> set[int] | None:
    """Identities of all leaves in a graph.

    None where a function of Python's, as a checkpoint, may hide some.

    Args:
        outputs: with a graph.

    Returns:
        The ``id`` of each.

    Example:
        >>> x, y = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
        >>> leaves_below([x * 2]) == {id(x)}
        True
    """
    found, seen, todo = (
        {id(each) for each in outputs if each.is_leaf},
        set(),
        [each.grad_fn for each in outputs],
    )
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            return None
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        todo += [below for below, _ in node.next_functions]
    return found
