# SPDX-License-Identifier: BSD-3-Clause
"""Parts of one batch that were collated apart, put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch


def merge(parts: Sequence[Any]) -> Any:
    """What `default_collate` makes of all samples, from what it has made of some each.

    Args:
        parts: of one batch, in the order of its rows.

    Returns:
        The batch.

    Raises:
        RuntimeError: samples differ in shape, as `default_collate` says it.

    Example:
        >>> merge([{"x": torch.ones(1), "name": ["a"]}, {"x": torch.zeros(1), "name": ["b"]}])
        {'x': tensor([1., 0.]), 'name': ['a', 'b']}
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    if isinstance(first, torch.Tensor):
        return torch.cat(list(parts))
    if isinstance(first, Mapping):
        made = {key: merge([part[key] for part in parts]) for key in first}
        return made if type(first) is dict else type(first)(made)  # type: ignore[call-arg]
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(*(merge(each) for each in zip(*parts, strict=True)))
    if first and isinstance(first[0], (str, bytes)):
        return type(first)(text for part in parts for text in part)
    return type(first)(merge(each) for each in zip(*parts, strict=True))
