# SPDX-License-Identifier: BSD-3-Clause
"""The quantile that promises on latency are made of, for the server and for those who ask it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def quantile(ordered: Sequence[T], share: float) -> T:
    """The least of the values that so large a share of them does not exceed (the nearest rank).

    Args:
        ordered: values, rising; at least one.
        share: above 0, up to 1.

    Example:
        >>> quantile([1, 2, 3, 4], 0.5), quantile([1, 2, 3, 4], 0.99)
        (2, 4)
    """
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
