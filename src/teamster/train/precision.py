# SPDX-License-Identifier: BSD-3-Clause
"""Half precision: the type for operations, and the scaler that small gradients need."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from teamster.errors import UsageError

Precision = Literal["bf16", "fp16"] | None

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def precision_of(precision: Precision, module: nn.Module) -> tuple[torch.dtype | None, Any]:
    """The type that operations are done in where they may, and a scaler of gradients.

    Args:
        precision: as `Trainer` takes it.
        module: the user's.

    Returns:
        None for either where there is no need of it.

    Raises:
        UsageError: there is no such precision.

    Example:
        >>> precision_of("bf16", nn.Linear(1, 1))
        (torch.bfloat16, None)
    """
    if precision is None:
        return None, None
    if precision not in _TYPES:
        raise UsageError(f"precision must be 'bf16', 'fp16' or None; not {precision!r}")
    device = next((each.device.type for each in module.parameters()), "cpu")
    scaler = torch.amp.GradScaler(device) if precision == "fp16" else None
    return _TYPES[precision], scaler
