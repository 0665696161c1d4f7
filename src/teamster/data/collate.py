# SPDX-License-Identifier: BSD-3-Clause
"""Parts of one batch that were collated apart, put together as if they had not been.

::

    worker:   samples of one form --> default_collate --> Collated(form, value)
              any others          --> Raw(samples)
    consumer: all of the same form --> concatenated
              any others           --> samples again --> default_collate, or its error
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data._utils.collate import default_collate

_SCALARS = (float, int, bool)
_TEXTS = (str, bytes)


@dataclass(slots=True)
class Collated:
    """Some rows of a batch.

    Attributes:
        form: of each sample.
        value: what `default_collate` has made of them.
    """

    form: Any
    value: Any


@dataclass(slots=True)
class Placed:
    """The same, but for what is large: that is in a slot.

    Attributes:
        form: of each sample.
        rest: collated, with zeros for what is in the slot.
    """

    form: Any
    rest: Any


@dataclass(slots=True)
class Raw:
    """Samples that cannot be collated apart from the others."""

    samples: list[Any]


def form_of(sample: Any) -> Any:
    """What decides how `default_collate` treats a sample; None where it is not one of the usual.

    Example:
        >>> form_of((torch.ones(1), {"y": "a"})) == form_of((torch.ones(2), {"y": "b"}))
        True
        >>> form_of({1, 2}) is None
        True
    """
    kind = type(sample)
    if kind in _SCALARS or kind in _TEXTS or kind is torch.Tensor:
        return kind
    if kind is dict:
        inner = [form_of(each) for each in sample.values()]
        return None if None in inner or not inner else (kind, tuple(sample), *inner)
    if kind is list or kind is tuple or (isinstance(sample, tuple) and hasattr(kind, "_fields")):
        inner = [form_of(each) for each in sample]
        return None if None in inner or not inner else (kind, *inner)
    numpy = sys.modules.get("numpy")
    if numpy is not None and kind is numpy.ndarray and sample.dtype.kind in "biufc":
        return kind if sample.dtype.isnative else None
    return None


def collate_part(samples: Sequence[Any], form: Any = None) -> Collated | Raw:
    """Collate some rows, if that is the same as with all the others.

    Args:
        samples: at least one.
        form: of them, where it is known already.

    Returns:
        The samples themselves where it might not be the same.

    Example:
        >>> collate_part([1, 2])
        Collated(form=<class 'int'>, value=tensor([1, 2]))
        >>> collate_part([1, 2.5])
        Raw(samples=[1, 2.5])
    """
    form = form or common_form(samples)
    if form is None:
        return Raw(list(samples))
    try:
        return Collated(form, default_collate(samples))
    except Exception:  # the consumer raises it, for the whole batch
        return Raw(list(samples))


def common_form(samples: Sequence[Any]) -> Any:
    """The form of all samples; None where they have several, or none of the usual."""
    form = form_of(samples[0])
    if form is None or any(form_of(sample) != form for sample in samples[1:]):
        return None
    return form


def merge(parts: Sequence[Collated | Raw]) -> Any:
    """What `default_collate` makes of all samples of a batch.

    Args:
        parts: of one batch, in the order of its rows.

    Returns:
        The batch.

    Raises:
        Exception: what `default_collate` raises.

    Example:
        >>> merge([collate_part([{"x": torch.ones(1)}]), collate_part([{"x": torch.zeros(1)}])])
        {'x': tensor([[1.],
                [0.]])}
        >>> merge([collate_part([1]), collate_part([2.5])]).dtype
        torch.float32
    """
    first = parts[0]
    if isinstance(first, Collated) and all(
        isinstance(part, Collated) and part.form == first.form for part in parts
    ):
        try:
            return concatenated([part.value for part in parts])  # type: ignore[union-attr]
        except (RuntimeError, ValueError):  # samples of several sizes
            pass
    return default_collate([sample for part in parts for sample in samples_of(part)])


def concatenated(values: list[Any]) -> Any:
    """Collated rows of samples of one form, one behind the other.

    Raises:
        RuntimeError: their sizes differ; or ValueError.

    Example:
        >>> concatenated([[torch.ones(1), ("a",)], [torch.zeros(1), ("b",)]])
        [tensor([1., 0.]), ('a', 'b')]
    """
    first = values[0]
    if len(values) == 1:
        return first
    if isinstance(first, torch.Tensor):
        return torch.cat(values)
    if type(first) is dict:
        return {key: concatenated([value[key] for value in values]) for key in first}
    if first and isinstance(first[0], _TEXTS):
        return type(first)(text for value in values for text in value)
    inner = [concatenated(list(each)) for each in zip(*values, strict=True)]
    return type(first)(*inner) if hasattr(first, "_fields") else type(first)(inner)


def samples_of(part: Collated | Raw) -> list[Any]:
    """The samples that a part was made of.

    Example:
        >>> samples_of(collate_part([(1, "a"), (2, "b")]))
        [(1, 'a'), (2, 'b')]
    """
    return part.samples if isinstance(part, Raw) else _rows(part.form, part.value)


def _rows(form: Any, value: Any) -> list[Any]:
    if form in _SCALARS:
        return list(value.tolist())
    if not isinstance(form, tuple):  # tensors, arrays and texts
        return list(value)
    kind, *inner = form
    if kind is dict:
        keys, *inner = inner
        columns = [_rows(each, value[key]) for each, key in zip(inner, keys, strict=True)]
        return [dict(zip(keys, row, strict=True)) for row in zip(*columns, strict=True)]
    columns = [_rows(each, column) for each, column in zip(inner, value, strict=True)]
    rows = zip(*columns, strict=True)
    return [kind(*row) if hasattr(kind, "_fields") else kind(row) for row in rows]
