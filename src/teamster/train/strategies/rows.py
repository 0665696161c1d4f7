# SPDX-License-Identifier: BSD-3-Clause
"""Rows of a batch: of tensors and arrays, and of lists that have a value a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from teamster.parallel.scattering import slices
from teamster.tensors.devices import as_device
from teamster.tensors.nest import parts_of, remake

_VALUES = (str, bytes, int, float, bool, type(None))


class _Listed:
    """Stands for a list of values, as an array does that can be split."""

    ndim = 1

    def __init__(self, values: Sequence[Any]) -> None:
        self.values = values


def has_lists(value: Any, rows: int) -> bool:
    """Whether something in a batch is a list, or tuple, of a text or number a row.

    Example:
        >>> has_lists({"names": ["a", "b"], "size": 3}, 2), has_lists([1, 2, 3], 2)
        (True, False)
    """
    if _is_list(value, rows):
        return True
    return any(has_lists(part, rows) for part in parts_of(value) or ())


def _is_list(value: Any, rows: int) -> bool:
    return (
        type(value) in (list, tuple)
        and len(value) == rows
        and all(isinstance(each, _VALUES) for each in value)
    )


def cut(value: Any, sizes: Sequence[int]) -> list[Any]:
    """A copy of a batch for each slice.

    Args:
        value: tensors, arrays and lists in containers.
        sizes: rows of the slices, one behind the other; together those of the batch.

    Returns:
        As many as there are sizes; what has no rows is in all of them.

    Example:
        >>> import torch
        >>> cut({"x": torch.arange(3), "names": ["a", "b", "c"]}, [2, 1])
        [{'x': tensor([0, 1]), 'names': ['a', 'b']}, {'x': tensor([2]), 'names': ['c']}]
    """
    rows = sum(sizes)
    lists: list[Any] = []
    hidden = _hide(value, rows, lists) if rows and has_lists(value, rows) else value
    found = slices(hidden, sizes, [as_device("cpu")] * len(sizes), 0)
    if not lists:
        return found
    ends = [sum(sizes[: index + 1]) for index in range(len(sizes))]
    return [
        _show(each, end - size, end) for each, size, end in zip(found, sizes, ends, strict=True)
    ]


def _hide(value: Any, rows: int, lists: list[Any]) -> Any:
    if _is_list(value, rows):
        lists.append(value)
        return _Listed(value)
    parts = parts_of(value)
    return remake(value, [_hide(part, rows, lists) for part in parts]) if parts else value


def _show(value: Any, start: int, stop: int) -> Any:
    if isinstance(value, _Listed):
        return value.values[start:stop]
    parts = parts_of(value)
    return remake(value, [_show(part, start, stop) for part in parts]) if parts else value
