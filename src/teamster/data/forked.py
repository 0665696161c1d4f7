# SPDX-License-Identifier: BSD-3-Clause
"""Where a dataset can only be had by a fork: torch's own workers read it, and a warning says so."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from torch.utils import data

from teamster.errors import first_line
from teamster.spine.workers.seeds import generator_states, restore_generators


def own_or_torchs(
    loader: Any, own: Callable[[], Any], refused: Callable[[], bool] = lambda: True
) -> tuple[Any, str]:
    """An iterator with workers of ours; or torch's, which draws what ours has drawn once more.

    Args:
        loader: of torch's class.
        own: makes the iterator.
        refused: whether an error of that means that processes cannot have the dataset.

    Returns:
        The iterator, and why it is torch's; empty where it is not.

    Raises:
        Exception: any other error of `own`.
    """
    before, generator = generator_states(), loader.generator
    state = generator.get_state() if generator is not None else None
    try:
        return own(), ""
    except Exception as error:
        if not refused():
            raise
        reason = first_line(error)
    warnings.warn(f"torch's own workers read this dataset, by a fork: {reason}", stacklevel=6)
    restore_generators(before)
    if generator is not None:
        generator.set_state(state)
    return data.DataLoader._get_iterator(loader), reason
