# SPDX-License-Identifier: BSD-3-Clause
"""Every sample once an epoch, in the order of the sampler."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils import data

import teamster as ts
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


class Large:
    def __len__(self) -> int:
        return 200

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((1000,), float(index))


@pytest.mark.parametrize(("nbytes", "most"), [(200_000, 12), (100_000, 6), (1, 2)])
def test_what_is_ahead_is_bounded_in_bytes(nbytes: int, most: int) -> None:
    loader = DataLoader(
        Large(),
        4,  # of 16,000 bytes
        num_workers=8,
        workers="thread",
        prefetch_bytes=nbytes,
    )
    batches = iter(loader)
    assert len(batches._open) == 2  # what a batch takes is not known yet
    seen = [len(batches._open) for _ in batches]
    assert max(seen) == most
    assert len(seen) == 50


@pytest.mark.parametrize("nbytes", [0, -1, "much", 2.5])
def test_a_bound_that_makes_no_sense(nbytes: Any) -> None:
    with pytest.raises(ts.UsageError, match="prefetch_bytes"):
        DataLoader(Large(), prefetch_bytes=nbytes)


class Slow(Large):
    def __getitem__(self, index: int) -> torch.Tensor:
        with ts.span("decode"):
            time.sleep(0.001)
        return torch.full((30_000,), float(index))


@pytest.mark.parametrize("kind", ["inline", "thread", "process"])
def test_a_timeline_shows_what_batches_are_made_of(kind: Any) -> None:
    with ts.record() as recording:
        for _ in DataLoader(Slow(), 25, num_workers=1, workers=kind):
            pass
    shown: dict[tuple[str, str], set[int]] = {}
    for lane in recording.timeline.lanes:
        for _, _, number, _, name, _ in lane.spans.rows():
            shown.setdefault((recording.timeline.names[name], lane.kind), set()).add(number)
    where = {"inline": "caller"}.get(kind, kind)
    for name, lane in [("read samples", where), ("collate", where), ("wait for a batch", "caller")]:
        assert shown[name, lane] <= set(range(8))  # of batches
        assert len(shown[name, lane]) > 4  # those too short to be seen are left out
    assert len(shown["decode", where]) == 1


def test_a_profiler_sees_the_loader() -> None:
    loader = DataLoader([1, 2], workers="inline")
    with torch.profiler.profile() as profile:
        list(loader)
    assert any(event.name.startswith("enumerate(DataLoader)#") for event in profile.events())
