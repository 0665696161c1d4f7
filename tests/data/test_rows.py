# SPDX-License-Identifier: BSD-3-Clause
"""How many rows of a batch a task has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teamster.data.rows import RowsPerTask


def rows(workers: int, sample_s: float, size: int, *, urgent: bool = False) -> int:
    per_task = RowsPerTask(workers)
    per_task.learn(1, sample_s)
    return per_task.of(size, urgent=urgent)


@pytest.mark.parametrize(
    ("workers", "sample_s", "size", "urgent", "expected"),
    [
        (2, 0.003, 32, False, 4),  # some tasks of a batch for each worker
        (2, 0.003, 32, True, 1),  # the consumer waits: all workers fill this batch
        (2, 0.0002, 32, True, 5),
        (8, 0.003, 32, False, 1),
        (2, 0.02, 32, False, 2),  # no more than 50 ms
        (2, 0.5, 32, False, 1),
        (2, 0.00001, 256, False, 256),  # not worth a task for some of them
        (64, 0.02, 16, False, 1),
    ],
)
def test_a_task_is_neither_too_small_nor_too_long(
    workers: int, sample_s: float, size: int, urgent: bool, expected: int
) -> None:
    assert rows(workers, sample_s, size, urgent=urgent) == expected


@given(st.integers(1, 200), st.floats(1e-9, 1e3), st.integers(1, 100_000), st.booleans())
def test_there_is_always_at_least_one_and_at_most_all(
    workers: int, sample_s: float, size: int, urgent: bool
) -> None:
    assert 1 <= rows(workers, sample_s, size, urgent=urgent) <= size
