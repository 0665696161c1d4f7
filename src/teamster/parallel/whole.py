# SPDX-License-Identifier: BSD-3-Clause
"""Arguments that every device gets whole: an attention mask, an adjacency matrix, a table."""

from __future__ import annotations

import functools
import sys
from typing import Any, TypeVar

import torch

from teamster.tensors.nest import is_array, parts_of, remake

Value = TypeVar("Value")

_MARK = "_is_whole_for_replicas"


def shared(value: Value) -> Value:
    """Mark an argument of a `DataParallel` that is not to be sliced.

    Args:
        value: a tensor, sparse and nested ones included, a NumPy array, or a container of them.

    Returns:
        The same value over the same memory, marked; what is computed from it is not. Gradients go
        through.

    Example:
        >>> from teamster.parallel import DataParallel
        >>> class Masked(torch.nn.Module):
        ...     def forward(self, x, mask):
        ...         return x @ mask
        >>> mask = torch.ones(3, 3).tril()
        >>> DataParallel(Masked(), ["cpu", "cpu"])(torch.ones(8, 3), shared(mask)).shape
        torch.Size([8, 3])
    """
    marked: Any = value
    if isinstance(value, torch.Tensor):
        marked = _another(value)
        setattr(marked, _MARK, True)
    elif is_array(value):
        marked = value.view(_markable_arrays())  # type: ignore[attr-defined]
        setattr(marked, _MARK, True)
    elif parts := parts_of(value):
        marked = remake(value, [shared(part) for part in parts])
    return marked  # type: ignore[no-any-return]


def is_shared(value: Any) -> bool:
    """Whether `shared` has marked a tensor or an array.

    Args:
        value: one of them.

    Returns:
        False for what was computed from a marked one.

    Example:
        >>> mask = shared(torch.ones(2))
        >>> is_shared(mask), is_shared(mask + 1)
        (True, False)
    """
    return getattr(value, _MARK, False)


def _another(tensor: torch.Tensor) -> torch.Tensor:
    """The mark is not to be on the caller's own object, which may be sliced elsewhere."""
    if not tensor.requires_grad:
        return tensor.detach()
    return (
        tensor.view_as(tensor)
        if tensor.layout == torch.strided and not tensor.is_nested
        else tensor.clone()
    )


@functools.cache
def _markable_arrays() -> Any:
    """NumPy's own arrays take no attributes."""
    return type("MarkedArray", (sys.modules["numpy"].ndarray,), {})
