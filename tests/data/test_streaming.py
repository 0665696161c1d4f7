# SPDX-License-Identifier: BSD-3-Clause
"""Iterable datasets: no sample twice, none missing, and on from where it was."""

from __future__ import annotations

import pickle
import random
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils import data

import teamster as ts
from teamster.data import DataLoader
from teamster.tasks.monitor.snapshot import worker_pids

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
]


class Numbers(data.IterableDataset[Any]):
    """Divides itself among workers; its state is where it is."""

    def __init__(self, count: int, *, stateful: bool = True) -> None:
        self.count = count
        self.position = 0
        if not stateful:
            self.state_dict = self.load_state_dict = None  # type: ignore[assignment]
        self.reads = 0

    def __iter__(self) -> Iterator[int]:
        info = data.get_worker_info()
        number, workers = (info.id, info.num_workers) if info is not None else (0, 1)
        begun, self.position = self.position, 0
        for place, value in enumerate(range(number, self.count, workers)):
            if place < begun:
                continue
            self.position = place + 1
            yield value
        self.position = 0

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]


class Plain(data.IterableDataset[Any]):
    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[int]:
        yield from range(self.count)


class Divided(Plain):
    def __iter__(self) -> Iterator[int]:
        info = data.get_worker_info()
        number, workers = (info.id, info.num_workers) if info is not None else (0, 1)
        yield from range(number, self.count, workers)


class Shuffled(Plain):
    def __iter__(self) -> Iterator[int]:
        order = list(range(self.count))
        random.shuffle(order)
        yield from order


def batches(loader: Any) -> list[Any]:
    return [batch.tolist() for batch in loader]


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
@pytest.mark.parametrize("stopped", [0, 1, 4, 5])
def test_it_goes_on_where_the_dataset_says_that_it_was(workers: int, stopped: int) -> None:
    def loader() -> DataLoader[Any]:
        return DataLoader(Numbers(40), 4, num_workers=workers)

    expected = batches(loader())
    first = loader()
    given = iter(first)
    seen = [next(given).tolist() for _ in range(stopped)]
    state = pickle.loads(pickle.dumps(first.state_dict()))
    again = loader()
    again.load_state_dict(state)
    assert seen + batches(again) == expected
    assert batches(again) == expected  # the epoch after that is whole


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("make", [Divided, Shuffled])
def test_what_has_no_state_is_read_again_with_a_warning(workers: int, make: Any) -> None:
    if workers and make is Shuffled:
        pytest.skip("each of its workers gives all samples")

    def loader() -> DataLoader[Any]:
        return DataLoader(make(40), 4, num_workers=workers)

    random.seed(3), torch.manual_seed(3)
    first = loader()
    given = iter(first)
    seen = [next(given).tolist() for _ in range(3)]
    state = first.state_dict()
    rest = batches(given)
    again = loader()
    again.load_state_dict(state)
    random.seed(4), torch.manual_seed(4)
    with pytest.warns(UserWarning, match="its first 3 batches are read again, which took"):
        gone_on = batches(again)
    assert (gone_on, len(seen)) == (rest, 3)


def test_a_state_of_other_workers_is_refused() -> None:
    first = DataLoader(Numbers(40), 4, num_workers=2)
    given = iter(first)
    next(given)
    with pytest.raises(ts.UsageError, match="the state is of 2 workers, and this loader has 0"):
        DataLoader(Numbers(40), 4).load_state_dict(first.state_dict())
    with pytest.raises(ts.UsageError, match=r"no state of a .* with an iter"):
        DataLoader(Numbers(40), 4).load_state_dict({"version": 1, "length": 4})


def test_workers_that_give_the_same_are_found_out() -> None:
    with pytest.warns(UserWarning, match="all 2 workers give the same samples, so each comes 2"):
        assert len(batches(DataLoader(Plain(40), 4, num_workers=2))) == 20
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="all 2 workers")
        assert len(batches(DataLoader(Divided(40), 4, num_workers=2))) == 10
        assert len(batches(DataLoader(Plain(40), 4, num_workers=1))) == 10
        assert len(batches(DataLoader(Plain(40), 4))) == 10


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
@pytest.mark.parametrize("count", [40, 41, 43, 3])
def test_less_than_a_batch_of_all_is_dropped(workers: int, count: int) -> None:
    loader = DataLoader(Divided(count), 4, num_workers=workers, drop_last=True)
    found = batches(loader)
    assert all(len(batch) == 4 for batch in found)
    assert len(found) == count // 4
    values = [value for batch in found for value in batch]
    assert len(set(values)) == len(values)
    assert len(batches(loader)) == count // 4


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [None, 4])
def test_batches_are_torchs(workers: int, batch_size: int | None) -> None:
    how: dict[str, Any] = {"batch_size": batch_size, "num_workers": workers}
    ours, theirs = DataLoader(Divided(21), **how), data.DataLoader(Divided(21), **how)
    for _ in range(2):
        assert [repr(batch) for batch in ours] == [repr(batch) for batch in theirs]
    assert ours.report().batches == 2 * len(list(theirs))


def test_workers_that_stay_begin_anew() -> None:
    loader = DataLoader(Numbers(20), 4, num_workers=2, persistent_workers=True)
    first = batches(loader)
    workers = [worker_pids(pool) for pool in loader._iterator._pools]
    assert batches(loader) == first
    assert [worker_pids(pool) for pool in loader._iterator._pools] == workers
    assert len(workers) == 2
    del loader._iterator


def test_errors_are_the_datasets_own() -> None:
    class Fails(Plain):
        def __iter__(self) -> Iterator[int]:
            yield from range(4)
            raise OSError("the stream is broken")

    found = iter(DataLoader(Fails(0), 4))
    assert next(found).tolist() == [0, 1, 2, 3]
    with pytest.raises(OSError, match="the stream is broken"):
        next(found)
    with pytest.raises(ts.UsageError, match="on_error is for datasets with indices"):
        DataLoader(Fails(0), 4, on_error="skip")


def test_a_worker_may_be_divided_by_its_initialiser() -> None:
    loader = DataLoader(Range(0, 12), 3, num_workers=2, worker_init_fn=divide)
    assert sorted(value for batch in batches(loader) for value in batch) == list(range(12))


class Range(data.IterableDataset[Any]):
    def __init__(self, start: int, end: int) -> None:
        self.start, self.end = start, end

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.end))


def divide(worker: int) -> None:
    info = data.get_worker_info()
    dataset: Any = info.dataset
    share = (dataset.end - dataset.start) // info.num_workers
    dataset.start += worker * share
    dataset.end = dataset.start + share
