# SPDX-License-Identifier: BSD-3-Clause
"""Tensors inside of containers, which may be nested as deep as one likes.

Containers are tuples, lists, dicts, named tuples and dataclasses.

::

    walk(value, visit)      the same containers, with visit(tensor) in the place of each tensor
    tensors_of(value)       the tensors, in the order of the walk

What is no container is passed on as it is.
"""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections import UserDict
from collections.abc import Callable, Mapping
from typing import Any

import torch

Visit = Callable[[torch.Tensor], Any]


def is_namedtuple(value: Any) -> bool:
    """Whether a value was made by a named tuple's class.

    Args:
        value: anything.

    Returns:
        True for such a tuple.

    Example:
        >>> is_namedtuple((1, 2))
        False
    """
    return isinstance(value, tuple) and hasattr(value, "_fields") and hasattr(value, "_make")


def is_dataclass_instance(value: Any) -> bool:
    """Whether a value is an object of a dataclass, and not the class itself.

    Args:
        value: anything.

    Returns:
        True for such an object.

    Example:
        >>> is_dataclass_instance(3)
        False
    """
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def is_array(value: Any) -> bool:
    """Whether a value is an array of NumPy's; a program without NumPy has none.

    Args:
        value: anything.

    Returns:
        True for such an array.

    Example:
        >>> is_array([1, 2])
        False
    """
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def remake(value: Any, parts: list[Any]) -> Any:
    """A container like `value` that holds `parts`, in the order of `parts_of`.

    Args:
        value: a container.
        parts: as many as it has.

    Returns:
        A new container of the same type; the old one is as it was.

    Example:
        >>> remake({"a": 1}, [2])
        {'a': 2}
    """
    if is_namedtuple(value):
        return type(value)._make(parts)
    if isinstance(value, Mapping):
        return _refill(value, parts)
    if is_dataclass_instance(value):
        made = copy.copy(value)
        for field, part in zip(dataclasses.fields(value), parts, strict=True):
            object.__setattr__(made, field.name, part)  # a frozen one refuses any other way
        return made
    return type(value)(parts)


def _refill(value: Mapping[Any, Any], parts: list[Any]) -> Any:
    filled: Any
    if is_dataclass_instance(value):  # both at once, as outputs of large models are
        return type(value)(**dict(zip(value, parts, strict=True)))
    if not isinstance(value, (dict, UserDict)):  # a copy of it might share what it holds
        filled = type(value)(dict(zip(value, parts, strict=True)))  # type: ignore[call-arg]
        return filled
    filled = copy.copy(value)  # keeps a default factory, and what a subclass has of its own
    for key, part in zip(list(value), parts, strict=True):
        filled[key] = part
    return filled


def parts_of(value: Any) -> list[Any] | None:
    """What a container holds; None for what is no container.

    Args:
        value: anything.

    Returns:
        Its parts in order; of a dict its values.

    Example:
        >>> parts_of({"a": 1, "b": 2}), parts_of("text")
        ([1, 2], None)
    """
    if isinstance(value, torch.Size):
        return None
    if isinstance(value, (tuple, list)):
        return list(value)
    if isinstance(value, Mapping):
        return list(value.values())
    if is_dataclass_instance(value):
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    return None


def walk(value: Any, visit: Visit) -> Any:
    """The same containers with something else in the place of each tensor.

    Args:
        value: anything.
        visit: called with each tensor.

    Returns:
        New containers; what holds no tensor is passed on as it is.

    Example:
        >>> walk({"a": (torch.ones(2), "b")}, lambda tensor: tensor.sum().item())
        {'a': (2.0, 'b')}
    """
    if isinstance(value, torch.Tensor):
        return visit(value)
    parts = parts_of(value)
    if not parts:
        return value
    made = [walk(part, visit) for part in parts]
    return (
        value
        if all(new is old for new, old in zip(made, parts, strict=True))
        else remake(value, made)
    )


def tensors_of(value: Any) -> list[torch.Tensor]:
    """All tensors inside, in the order of `walk`.

    Args:
        value: anything.

    Returns:
        The tensors; one that is there twice is there twice.

    Example:
        >>> len(tensors_of([torch.ones(1), {"a": torch.ones(1)}, 3]))
        2
    """
    found: list[torch.Tensor] = []
    walk(value, lambda tensor: (found.append(tensor), tensor)[1])  # type: ignore[func-returns-value]
    return found
