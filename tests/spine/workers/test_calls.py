# SPDX-License-Identifier: BSD-3-Clause
"""Batches of single calls."""

from __future__ import annotations

from collections import deque
from typing import Any

from teamster.spine.workers.calls import CallBatch


def test_an_end_tells_only_what_was_not_told() -> None:
    """The items of a batch may be gone, when all of its calls were told and that it is over was not
    read yet.
    """
    outcomes: deque[Any] = deque()
    batch = CallBatch(None, ["first", "second"], [1, 2], outcomes)  # type: ignore[arg-type, list-item]
    batch.take_values(0, [10])
    batch.abandon(ValueError())
    batch.items = ()  # type: ignore[assignment]
    batch.abandon(KeyError())
    assert [(call, value, type(error)) for call, value, error in outcomes] == [
        ("first", 10, type(None)),
        ("second", None, ValueError),
    ]
