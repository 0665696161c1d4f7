# SPDX-License-Identifier: BSD-3-Clause
"""The loader gives what torch's own gives, whoever fills its batches."""

from __future__ import annotations

import threading
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.utils import data

import teamster as ts
from teamster.data import DataLoader
from teamster.data.fetch import Fetch
from teamster.errors import UsageError

KINDS = ["inline", "thread", "process", "hybrid"]
Pair = namedtuple("Pair", "x y")


class Records(data.Dataset[Any]):
    """Samples of all that `default_collate` knows."""

    def __init__(self, count: int = 23) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return {
            "x": torch.full((3,), float(index)),
            "y": index,
            "name": f"sample {index}",
            "pair": Pair(index * 1.5, [index, index + 1]),
            "nested": (torch.tensor(index), {"deep": torch.ones(2) * index}),
        }


class Many(Records):
    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [{"x": torch.tensor(index), "n": len(indices)} for index in indices]


def sums(samples: list[Any]) -> Any:
    return sum(each["y"] for each in samples), len(samples)


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "batches": {"batch_size": 5},
    "one batch": {"batch_size": 100},
    "drop_last": {"batch_size": 5, "drop_last": True},
    "no batches": {"batch_size": None},
    "shuffled": {"batch_size": 4, "shuffle": True},
    "collate_fn": {"batch_size": 4, "collate_fn": sums},
    "sampler": {"batch_size": 2, "sampler": [3, 3, 1, 0]},
    "batch_sampler": {"batch_sampler": [[1, 2], [5], [7, 8, 9]]},
    "single": {},
    "weighted": {
        "batch_size": 3,
        "sampler": data.WeightedRandomSampler(
            [1.0] * 23, 9, generator=torch.Generator().manual_seed(5)
        ),
    },
}


@pytest.fixture
def load() -> Iterator[Callable[..., list[Any]]]:
    def run(kind: str, dataset: Any, **how: Any) -> list[Any]:
        loader = DataLoader(dataset, num_workers=2, workers=kind, **how)  # type: ignore[arg-type]
        return list(loader)

    return run


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize("dataset", [Records(), Many()], ids=["samples", "__getitems__"])
def test_batches_are_torchs(
    kind: str, name: str, dataset: Any, load: Callable[..., list[Any]]
) -> None:
    how = CONFIGURATIONS[name]
    if name == "collate_fn" and isinstance(dataset, Many):
        pytest.skip("its samples have no y")

    def seeded() -> dict[str, Any]:
        if name == "weighted":
            how["sampler"].generator.manual_seed(5)
        return {**how, "generator": torch.Generator().manual_seed(3)}

    expected = list(data.DataLoader(dataset, **seeded()))
    assert equal(load(kind, dataset, **seeded()), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_epochs_are_shuffled_as_torchs(kind: str) -> None:
    loaders = [
        make(Records(), 4, shuffle=True, generator=torch.Generator().manual_seed(1), **how)
        for make, how in ((data.DataLoader, {}), (DataLoader, {"workers": kind}))
    ]
    theirs, ours = ([[batch["y"].tolist() for batch in each] for _ in range(2)] for each in loaders)
    assert ours == theirs


class Bad(Records):
    def __getitem__(self, index: int) -> Any:
        if index == 7:
            raise KeyError("sample 7 is bad")
        return torch.tensor(index)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_size", [1, 4])
def test_an_error_comes_in_the_place_of_its_batch_as_its_own_type(
    kind: str, batch_size: int
) -> None:
    batches = iter(DataLoader(Bad(), batch_size, num_workers=2, workers=kind))  # type: ignore[arg-type]
    for _ in range(7 // batch_size):
        next(batches)
    with pytest.raises(KeyError, match="sample 7 is bad"):
        next(batches)


class Where(Records):
    def __getitem__(self, index: int) -> Any:
        info = data.get_worker_info()
        worker = ts.current_worker()
        return (
            -1 if info is None else info.id,
            0 if info is None else info.num_workers,
            worker.kind if worker is not None else "consumer",
        )


@pytest.mark.parametrize("kind", KINDS)
def test_who_reads_samples_is_who_was_asked(kind: str) -> None:
    (batch,) = DataLoader(Where(), 23, num_workers=2, workers=kind)  # type: ignore[arg-type]
    ids, counts, kinds = batch
    ids, counts, kinds = ids[4:], counts[4:], kinds[4:]  # threads: the consumer looks at the first
    # The threads of a hybrid are parts of one worker: they share its dataset
    assert set(kinds) <= {
        "inline": {"consumer"},
        "hybrid": {"thread", "process"},
    }.get(kind, {kind})
    assert set(ids.tolist()) <= ({-1} if kind == "inline" else {0, 1})
    assert set(counts.tolist()) == {{"inline": 0, "hybrid": 1}.get(kind, 2)}


def test_no_workers_and_a_number_mean_what_they_mean_in_torch() -> None:
    assert set(next(iter(DataLoader(Where(), 23, num_workers=0)))[2]) == {"consumer"}
    assert set(next(iter(DataLoader(Where(), 23, num_workers=1)))[2]) == {"process"}


class Slow(Records):
    def __getitem__(self, index: int) -> Any:
        time.sleep(0.4 if index == 0 else 0.0)
        return index


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_a_slow_sample_does_not_change_the_order(kind: str) -> None:
    loader = DataLoader(Slow(8), 2, num_workers=2, workers=kind)  # type: ignore[arg-type]
    assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3], [4, 5], [6, 7]]


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_without_order_what_is_ready_comes_first(kind: str) -> None:
    loader = DataLoader(Slow(8), 2, num_workers=2, workers=kind, in_order=False)  # type: ignore[arg-type]
    batches = iter(loader)
    first = next(batches).tolist()
    rest = []
    for batch in batches:
        time.sleep(0.05)
        rest.append(batch.tolist())
    assert sorted([first, *rest]) == [[0, 1], [2, 3], [4, 5], [6, 7]]


class Stuck(Records):
    def __getitem__(self, index: int) -> Any:
        time.sleep(100 if index == 2 else 0)
        return index


def test_a_batch_that_does_not_come_in_time_is_an_error() -> None:
    batches = iter(DataLoader(Stuck(8), 2, num_workers=1, timeout=6))
    next(batches)
    with pytest.raises(RuntimeError, match="no batch came within timeout=6 s"):
        next(batches)
    batches.close()


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_an_iterator_that_is_left_leaves_nothing(kind: str) -> None:
    before = threading.active_count()
    batches = iter(DataLoader(Records(1_000), 2, num_workers=2, workers=kind))  # type: ignore[arg-type]
    next(batches)
    del batches
    deadline = time.monotonic() + 20
    while threading.active_count() > before:
        assert time.monotonic() < deadline, threading.enumerate()
        time.sleep(0.01)


def test_persistent_workers_stay() -> None:
    loader = DataLoader(Where(8), 8, num_workers=1, persistent_workers=True)
    (one,), (two,) = list(loader), list(loader)
    assert [*one[2], *two[2]] == ["process"] * 16
    loader._iterator.close()


def named(number: int) -> None:
    Named.number = number


class Named(Records):
    number = -1

    def __getitem__(self, index: int) -> Any:
        return Named.number


def test_workers_are_initialised_with_their_numbers() -> None:
    (batch,) = DataLoader(Named(16), 16, num_workers=2, worker_init_fn=named)
    assert set(batch.tolist()) <= {0, 1}


class Random(Records):
    def __getitem__(self, index: int) -> Any:
        return torch.rand(())


def test_workers_have_random_numbers_of_their_own_which_a_generator_repeats() -> None:
    def numbers(seed: int) -> list[float]:
        generator = torch.Generator().manual_seed(seed)
        loader = DataLoader(Random(8), 1, num_workers=1, generator=generator)
        return [batch.item() for batch in loader]

    assert numbers(1) == numbers(1) != numbers(2)


class Stream(data.IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        yield from range(5)


def test_iterable_datasets_are_loaded_as_torch_loads_them() -> None:
    batches = DataLoader(Stream(), 2, num_workers=0)
    assert [batch.tolist() for batch in batches] == [[0, 1], [2, 3], [4]]


def test_what_torch_refuses_is_refused() -> None:
    with pytest.raises(ValueError, match="mutually exclusive"):
        DataLoader(Records(), shuffle=True, sampler=[0])
    with pytest.raises(ValueError, match="prefetch_factor"):
        DataLoader(Records(), num_workers=0, prefetch_factor=2)
    with pytest.raises(UsageError, match="workers must be one of"):
        DataLoader(Records(), workers="fibre")  # type: ignore[arg-type]


def test_every_public_member_of_torchs_is_there_and_none_of_its_private_ones_is_hidden() -> None:
    theirs = {name for name in dir(data.DataLoader) if not name.startswith("__")}
    ours = vars(DataLoader).keys()
    hidden = {name for name in ours if name in theirs}
    assert hidden == {"_get_iterator", "check_worker_number_rationality"}
    loader = DataLoader(Records(), 4)
    for name in theirs:
        if not name.startswith("_"):
            getattr(loader, name)
    assert isinstance(loader, data.DataLoader)
    assert len(loader) == 6


entered: list[tuple[int, int]] = []


def enter(number: int) -> None:
    info = data.get_worker_info()
    assert info is not None
    entered.append((number, info.id))


@pytest.mark.parametrize("how", [{"on_error": "skip"}, {"device": "cpu"}])
def test_what_torchs_own_processes_cannot_do_is_refused(how: Any) -> None:
    loader = DataLoader([1, 2], seeding="torch", workers="process", num_workers=1, **how)
    with pytest.raises(UsageError, match=f"{next(iter(how))}= cannot be had with seeding='torch'"):
        iter(loader)


def test_they_have_no_state() -> None:
    loader = DataLoader([1, 2], seeding="torch", workers="process", num_workers=1)
    state = DataLoader([1, 2], workers="inline").state_dict()
    for refused in (loader.state_dict, lambda: loader.load_state_dict(state)):
        with pytest.raises(UsageError, match="torch's own workers read, which have no state"):
            refused()


def test_threads_are_initialised_as_workers_are() -> None:
    entered.clear()
    loader = DataLoader(Records(), 2, num_workers=2, workers="thread", worker_init_fn=enter)
    assert len(list(loader)) == 12
    assert {(number, number) for number, _ in entered} == set(entered)
    assert len(entered) == len(set(entered)) <= 2
    assert data.get_worker_info() is None


class Numbers(data.IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(10))


def test_an_iterable_dataset_gives_each_sample_once() -> None:
    assert torch.cat(list(DataLoader(Numbers(), 4))).tolist() == list(range(10))
    with pytest.raises(UsageError, match="an iterable dataset is read by the consumer"):
        DataLoader(Numbers(), 4, workers="thread")


def is_shared(samples: list[Any]) -> list[bool]:
    return [data.get_worker_info() is not None, data.default_collate(samples).is_shared()]


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_batches_need_no_segment_of_torchs(kind: str) -> None:
    """One for each tensor of each batch, which a worker that is killed may leave behind."""
    rows = [torch.ones(5, 5)] * 20
    for batch in DataLoader(rows, 4, num_workers=2, workers=kind):  # type: ignore[arg-type]
        assert not batch.is_shared()
    of_own = DataLoader(rows, 4, num_workers=1, workers="process", collate_fn=is_shared)
    assert all(
        batch[0] is True for batch in of_own
    )  # to the end: none is killed while it makes one


class Slowly(Records):
    """Takes a while to arrive in a process."""

    def __init__(self) -> None:
        super().__init__(600)

    def __getitem__(self, index: int) -> Any:
        return sum(range(30_000)) + index

    def __setstate__(self, state: dict[str, Any]) -> None:
        time.sleep(1)
        self.__dict__.update(state)


def test_the_consumer_goes_on_until_the_workers_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    whole = Fetch.whole
    monkeypatch.setattr(
        Fetch, "whole", lambda self, *how: made.append(threading.get_ident()) or whole(self, *how)
    )
    loader = DataLoader(Slowly(), 4)
    expected = [sum(range(30_000)) + index for index in range(600)]
    for _ in range(3):
        assert torch.cat(list(loader)).tolist() == expected
    assert len(made) > 10  # far more than the probe has, while the processes started
    assert set(made) == {threading.get_ident()}


class Local(Records):
    def __init__(self) -> None:
        super().__init__(400)
        self.lock = threading.Lock()

    def __getitem__(self, index: int) -> Any:
        return sum(range(20_000)) + index


def test_a_dataset_that_does_not_travel_stays() -> None:
    loader = DataLoader(Local(), 4)
    values = torch.cat(list(loader))
    assert values.tolist() == [sum(range(20_000)) + index for index in range(400)]
    assert loader.explain().backend != "process"
