# SPDX-License-Identifier: BSD-3-Clause
"""Kinds of inputs that msgspec does not know: arrays, tensors, models of pydantic."""

from __future__ import annotations

import sys
from typing import Any, get_args, get_origin


def make(kind: Any, value: Any) -> Any:
    """An input of a kind, out of what JSON or MessagePack holds: msgspec's ``dec_hook``.

    Args:
        kind: an annotation: an array, a tensor, a model of pydantic.
        value: lists, dicts, numbers, texts.

    Raises:
        ValueError: it cannot be made of it.
        NotImplementedError: there is no such kind.

    Example:
        >>> import numpy
        >>> make(numpy.ndarray, [1, 2]).shape
        (2,)
    """
    if is_array(kind):
        return _array(kind, value)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(kind, type) and issubclass(kind, torch.Tensor):
        return torch.as_tensor(value)
    if hasattr(kind, "model_validate"):  # of pydantic
        return _validated(kind, value)
    raise NotImplementedError(f"inputs of the type {kind} are not read")


def is_array(kind: Any) -> bool:
    """Whether it is NumPy's array, with a type or without.

    Example:
        >>> is_array(list)
        False
    """
    numpy = sys.modules.get("numpy")
    return numpy is not None and (get_origin(kind) or kind) is numpy.ndarray


def _array(kind: Any, value: Any) -> Any:
    numpy = sys.modules["numpy"]
    arguments = get_args(kind)  # of NDArray: a shape, and dtype[float32]
    types = get_args(arguments[1]) if len(arguments) > 1 else ()
    dtype = types[0] if types and isinstance(types[0], type) else None
    found = numpy.asarray(value, dtype)
    if found.dtype == object and found is not value:
        raise ValueError("no array of numbers can be made of it")
    return found


def _validated(kind: Any, value: Any) -> Any:
    try:
        return kind.model_validate(value)
    except ValueError as error:
        first = error.errors()[0]  # type: ignore[attr-defined]  # of pydantic's
        where = "".join(f".{each}" for each in first["loc"])
        raise ValueError(f"{first['msg']} (at {where})" if where else first["msg"]) from None
