# SPDX-License-Identifier: BSD-3-Clause
"""Every sample once an epoch, in the order of the sampler."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils import data

from teamster.data import DataLoader


class Numbers(data.Dataset[Any]):
    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return torch.tensor(index)


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(0, 60),
    batch_size=st.integers(1, 20),
    workers=st.integers(1, 3),
    prefetch=st.integers(1, 4),
    drop_last=st.booleans(),
)
def test_every_sample_comes_once_and_in_order(
    count: int, batch_size: int, workers: int, prefetch: int, drop_last: bool
) -> None:
    loader = DataLoader(
        Numbers(count),
        batch_size,
        num_workers=workers,
        workers="thread",
        prefetch_factor=prefetch,
        drop_last=drop_last,
    )
    found = [batch.tolist() for batch in loader]
    kept = count - count % batch_size if drop_last else count
    assert [each for batch in found for each in batch] == list(range(kept))
    assert len(found) == len(loader)


def test_batches_are_begun_no_further_ahead_than_asked() -> None:
    drawn: list[int] = []

    class Drawing(data.Sampler[int]):
        def __iter__(self) -> Any:
            for index in range(1_000):
                drawn.append(index)
                yield index

        def __len__(self) -> int:
            return 1_000

    loader = DataLoader(
        Numbers(1_000), 1, sampler=Drawing(), num_workers=2, workers="thread", prefetch_factor=3
    )
    batches = iter(loader)
    for taken in range(1, 20):
        next(batches)
        assert len(drawn) <= taken + 2 * 3 + 1
    batches.close()
