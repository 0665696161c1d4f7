# SPDX-License-Identifier: BSD-3-Clause
"""The order of torch's own samplers, as tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler, TensorDataset

from teamster.data import DataLoader
from teamster.data.order import batches_of


@given(
    count=st.integers(1, 100),
    wanted=st.none() | st.integers(1, 150),
    replacement=st.booleans(),
    size=st.integers(1, 70),
    drop_last=st.booleans(),
    own=st.booleans(),
    taken=st.integers(0, 5) | st.none(),
)
def test_order_and_generators_are_those_of_the_sampler(
    count: int,
    wanted: int | None,
    replacement: bool,
    size: int,
    drop_last: bool,
    own: bool,
    taken: int | None,
) -> None:
    def drawn(as_tensors: bool) -> Any:
        torch.manual_seed(3)
        generator = torch.Generator().manual_seed(5) if own else None
        sampler = RandomSampler(range(count), replacement, wanted, generator)
        batches = BatchSampler(sampler, size, drop_last)
        order: Any = batches_of(batches) if as_tensors else iter(batches)
        limit = taken if taken is not None else 1_000
        found = [list(map(int, batch)) for batch, _ in zip(order, range(limit), strict=False)]
        state = generator.get_state().tolist() if generator is not None else []
        return found, state, torch.get_rng_state().tolist()

    assert drawn(True) == drawn(False)


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("count", [0, 1, 7, 8, 70_000])
def test_a_sequence_of_any_length(count: int, drop_last: bool) -> None:
    batches = BatchSampler(SequentialSampler(range(count)), 4, drop_last)
    order = batches_of(batches)
    assert order is not None
    assert [batch.tolist() for batch in order] == list(batches)


class Backwards(SequentialSampler):
    def __iter__(self) -> Any:
        return reversed(range(len(self.data_source)))


def test_samplers_of_the_program_are_asked() -> None:
    rows = torch.arange(6)
    loader = DataLoader(TensorDataset(rows), 4, sampler=Backwards(rows), workers="inline")
    assert [batch.tolist() for (batch,) in loader] == [[5, 4, 3, 2], [1, 0]]


def test_a_dataset_that_has_grown_when_the_epoch_begins() -> None:
    rows = list(range(3))
    order = batches_of(BatchSampler(SequentialSampler(rows), 2, False))
    rows.append(3)
    assert order is not None
    assert [batch.tolist() for batch in order] == [[0, 1], [2, 3]]
