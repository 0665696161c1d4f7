# SPDX-License-Identifier: BSD-3-Clause
"""How many threads torch uses inside of an operation, for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def inner_threads(count: int) -> Iterator[None]:
    """In here operations of this thread use so many.

    Args:
        count: at least 1.

    Example:
        >>> before = torch.get_num_threads()
        >>> with inner_threads(1):
        ...     torch.get_num_threads()
        1
        >>> torch.get_num_threads() == before
        True
    """
    before = torch.get_num_threads()
    if before == count:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
