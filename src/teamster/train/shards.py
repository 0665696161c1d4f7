# SPDX-License-Identifier: BSD-3-Clause
"""Tensors of which each rank has a part (`torch.distributed.tensor.DTensor`), and whole ones.

Recognised by what they have: to import their class takes longer than most trainings need.
"""

from __future__ import annotations

from typing import Any

import torch


def whole_of(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor, put together where each rank has a part; then all ranks have to call it.

    Example:
        >>> whole_of(torch.ones(1))
        tensor([1.])
    """
    gather: Any = getattr(tensor, "full_tensor", None)
    whole: torch.Tensor = tensor if gather is None else gather()
    return whole


def as_part(whole: Any, like: torch.Tensor) -> Any:
    """A rank's part of a tensor that every rank has.

    Args:
        whole: what it is.
        like: sharded as it is to be; anything else leaves it whole.

    Example:
        >>> as_part(torch.ones(2), like=torch.zeros(2))
        tensor([1., 1.])
    """
    mesh = getattr(like, "device_mesh", None)
    if mesh is None or not isinstance(whole, torch.Tensor) or whole.shape != like.shape:
        return whole
    from torch.distributed.tensor import distribute_tensor

    device = like.to_local().device
    return distribute_tensor(whole.to(device), mesh, like.placements, src_data_rank=None)
