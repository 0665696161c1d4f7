# SPDX-License-Identifier: BSD-3-Clause
"""How many batches may be open at a time, for the memory that they take."""

from __future__ import annotations

import sys
from typing import Any, Literal

from teamster.data.slots import tensors_of
from teamster.machine.memory import available_bytes

_SHARE = 0.25  # of the memory that is free to take
_LEAST = 2  # batches: one is filled while the consumer has the other
_LARGE_BYTES = 1 << 20  # smaller batches are not worth a look at the memory
_LOOKED_AT = 16  # batches, one of which may be larger than the others
_LOOKS_EVERY = 64  # batches, after that


class InFlight:
    """Bounds what is open in bytes.

    Args:
        nbytes: of all open batches; "auto" for a share of the memory that is free to take, cgroup
            limits considered.

    Example:
        >>> import torch
        >>> bound = InFlight(1_000)
        >>> bound.of(8)
        8
        >>> bound.learn({"x": torch.zeros(50)}); bound.of(8)
        5
    """

    def __init__(self, nbytes: int | Literal["auto"]) -> None:
        self._asked = nbytes
        self._allowed: int | None = None  # found out with the first large batch
        self._largest = 0
        self._seen = 0

    @property
    def is_known(self) -> bool:
        """Whether a batch was seen."""
        return self._seen > 0

    def learn(self, batch: Any) -> None:
        """See what a batch takes."""
        self._seen += 1
        if self._seen <= _LOOKED_AT or not self._seen % _LOOKS_EVERY:
            self._largest = max(self._largest, _bytes_of(batch))

    def of(self, ahead: int) -> int:
        """How many may be open, where `ahead` are wanted."""
        if self._asked == "auto" and self._largest < _LARGE_BYTES:
            return ahead
        if self._allowed is None:
            free = self._asked == "auto"
            self._allowed = int(available_bytes() * _SHARE) if free else int(self._asked)
        return min(ahead, max(_LEAST, self._allowed // max(1, self._largest)))


def _bytes_of(batch: Any) -> int:
    """Of its tensors and arrays, as far as containers of the usual kinds hold them."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(batch, numpy.ndarray):
        return int(batch.nbytes)
    return sum(int(tensor.nbytes) for _, tensor in tensors_of(batch) if not tensor.is_sparse)
