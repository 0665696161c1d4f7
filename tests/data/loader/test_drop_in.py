# SPDX-License-Identifier: BSD-3-Clause
"""What programs do with a loader that other loaders of torch's kind take."""

from __future__ import annotations

import copy
import pickle
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import pytest
import torch
from torch.utils import data

import teamster as ts
from teamster.data import DataLoader
from teamster.spine.plan.plan import Plan

KINDS = ["inline", "thread", "process"]


class Squares(data.Dataset[Any]):
    def __init__(self, count: int = 12) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return int(index) ** 2


BATCHES: dict[str, Callable[[], Any]] = {
    "tensors": lambda: list(torch.arange(12).split(5)),
    "arrays": lambda: numpy.array_split(numpy.arange(12), 3),
    "sets": lambda: [{0, 1}, {2, 3}],
    "generators": lambda: [(i for i in range(3)), (i for i in range(2))],
    "maps": lambda: [map(int, "123")],
    "ranges": lambda: [range(3), range(3, 12)],
    "keys": lambda: [dict.fromkeys([4, 5])],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batches", BATCHES)
def test_a_batch_of_indices_may_be_anything_that_can_be_iterated(kind: str, batches: str) -> None:
    make = BATCHES[batches]
    theirs = [batch.tolist() for batch in data.DataLoader(Squares(), batch_sampler=make())]
    ours = DataLoader(
        Squares(),
        batch_sampler=make(),
        num_workers=1,
        workers=kind,  # type: ignore[arg-type]
    )
    assert [batch.tolist() for batch in ours] == theirs


@pytest.mark.parametrize("batches", ["tensors", "arrays", "ranges"])
def test_of_datasets_in_memory_too(batches: str) -> None:
    dataset = data.TensorDataset(torch.arange(12) ** 2)
    theirs = [
        each.tolist() for (each,) in data.DataLoader(dataset, batch_sampler=BATCHES[batches]())
    ]
    assert [
        each.tolist() for (each,) in DataLoader(dataset, batch_sampler=BATCHES[batches]())
    ] == theirs


class FollowsTheLoop:
    def __init__(self) -> None:
        self.todo = [0]

    def __iter__(self) -> Iterator[list[int]]:
        while self.todo:
            yield [self.todo.pop(0)]


@pytest.mark.parametrize("how", [{}, {"num_workers": 0}, {"workers": "inline"}])
def test_a_sampler_may_follow_what_the_loop_does(how: dict[str, Any]) -> None:
    sampler, seen = FollowsTheLoop(), []
    for batch in DataLoader(Squares(100), batch_sampler=sampler, **how):
        seen.append(batch.item())
        if len(seen) < 7:
            sampler.todo.append(len(seen))
    assert seen == [number**2 for number in range(7)]


def test_without_workers_the_order_is_drawn_with_the_first_batch() -> None:
    orders = []
    for make in (data.DataLoader, DataLoader):
        torch.manual_seed(1)
        one, two = (iter(make(Squares(30), 30, shuffle=True)) for _ in range(2))
        torch.manual_seed(2)
        orders.append([next(one).tolist(), next(two).tolist()])
    assert orders[0] == orders[1]


def test_what_is_set_between_epochs_counts() -> None:
    dataset = data.TensorDataset(torch.arange(4))
    loader = DataLoader(dataset, 4)
    assert next(iter(loader))[0].tolist() == [0, 1, 2, 3]
    dataset.tensors = (torch.arange(10, 14),)
    assert next(iter(loader))[0].tolist() == [10, 11, 12, 13]
    subset = data.Subset(dataset, [0, 1])
    loader = DataLoader(subset, 2)
    assert next(iter(loader))[0].tolist() == [10, 11]
    subset.indices = [3, 2]
    assert next(iter(loader))[0].tolist() == [13, 12]
    subset.dataset = Squares(5)
    assert next(iter(loader)).tolist() == [9, 4]
    object.__setattr__(loader, "dataset", Squares(3))
    assert next(iter(loader)).tolist() == [0, 1]
    loader.num_workers = 2
    assert next(iter(loader)).tolist() == [0, 1]
    assert str(loader.explain()) == "process(2): asked for"
    loader.workers = "inline"
    assert str(loader.explain()) == "process(2): asked for"  # until the next epoch
    assert next(iter(loader)).tolist() == [0, 1]


class OfEpoch(Squares):
    epoch = 0

    def __init__(self) -> None:
        super().__init__(60)
        self.epoch = 0

    def __getitem__(self, index: int) -> Any:
        time.sleep(0.002)
        return self.epoch


class Processes:
    """In place of a tuner that has found them to be the fastest."""

    plan = Plan("process", 1, "chosen")
    probing = False

    def begin_epoch(self) -> None: ...

    def begin_window(self, pipelined: int) -> None: ...

    def delivered(self, pipelined: int, waited_s: float = 0.0) -> bool:
        return False


def test_processes_that_were_chosen_have_the_dataset_as_it_is() -> None:
    dataset = OfEpoch()
    loader = DataLoader(dataset, 2)
    loader._tuner = Processes()  # type: ignore[assignment]
    kept = []
    for epoch in range(8):
        dataset.epoch = epoch // 2
        seen = {value for batch in loader for value in batch.tolist()}
        assert seen == {epoch // 2}
        kept.append(loader._feeds._kept[1])  # type: ignore[index]
    for one, two in zip(kept[::2], kept[1::2], strict=True):
        assert one is two
    assert len(set(map(id, kept))) == 4


class Cursor(Squares):
    """Its samples use one place: two threads at a time mix them up."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.position = 0
        self.ballast = ["text"] * 300_000  # too large to be compared in a moment

    def __getitem__(self, index: int) -> Any:
        self.position = index
        time.sleep(0.002)
        return self.position


class OwnGenerator(Squares):
    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.random = numpy.random.default_rng(3)

    def __getitem__(self, index: int) -> Any:
        time.sleep(0.002)
        return self.random.random()


@pytest.mark.parametrize("make", [Cursor, OwnGenerator])
def test_a_dataset_that_reading_changes_is_read_by_one_thread(make: Any) -> None:
    theirs = torch.cat(list(data.DataLoader(make(400), 8)))
    loader = DataLoader(make(400), 8)
    assert torch.equal(torch.cat(list(loader)), theirs)
    assert loader.explain().backend == "serial"


def test_in_any_order_the_first_that_is_ready_comes_first() -> None:
    class OneIsSlow(Squares):
        def __getitem__(self, index: int) -> Any:
            if index == 6:
                slow.wait(30)
            return index

    slow = threading.Event()
    loader = DataLoader(OneIsSlow(), 1, num_workers=2, workers="thread", in_order=False)
    seen = []
    for batch in loader:
        seen.append(batch.item())
        if len(seen) == 10:
            slow.set()
    assert 6 in seen[10:]
    assert sorted(seen) == list(range(12))


def test_an_iterator_that_is_asked_again_gives_back_its_workers_once() -> None:
    loader = DataLoader(OfEpoch(), 2)
    one = iter(loader)
    list(one)
    two = iter(loader)
    assert next(one, None) is None
    assert len(list(two)) == 30


def test_loaders_pickle_and_are_copied_before_and_after_use() -> None:
    loader = DataLoader(Squares(), 4, workers="inline", on_error="skip", max_errors=3)
    for _ in range(2):
        for again in (pickle.loads(pickle.dumps(loader)), copy.deepcopy(loader), copy.copy(loader)):
            assert [batch.tolist() for batch in again] == [batch.tolist() for batch in loader]
            assert (again.workers, again.on_error, again.max_errors) == ("inline", "skip", 3)


def test_it_is_generic_as_torchs_is() -> None:
    class Own(DataLoader[int]):
        pass

    assert [batch.tolist() for batch in Own(Squares(3), 3)] == [[0, 1, 4]]
    assert DataLoader[int] is not None


def test_frameworks_that_make_a_loader_anew_keep_the_choice() -> None:
    loader = DataLoader(Squares(), 4)
    again = DataLoader(Squares(), 4, num_workers=loader.num_workers, workers=loader.workers)
    assert again.explain().reason == "the first batches are measured"
    assert data.DataLoader(Squares(), 4, num_workers=loader.num_workers).num_workers > 0
    explicit = DataLoader(Squares(), 4, num_workers=1)
    assert explicit.explain().reason == "asked for"


class Locked(Squares):
    def __init__(self) -> None:
        super().__init__()
        self.lines = (str(number) for number in range(100))  # a generator does not pickle

    def __getitem__(self, index: int) -> Any:
        return index


def test_a_dataset_that_only_a_fork_can_have_is_read_by_torchs_own_workers() -> None:
    loader = DataLoader(Locked(), 4, num_workers=2)
    with pytest.warns(UserWarning, match="torch's own workers read this dataset, by a fork"):
        first = [batch.tolist() for batch in loader]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is said once
        assert (
            [batch.tolist() for batch in loader]
            == first
            == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
        )
    with pytest.raises(ts.UsageError, match="torch's own workers"):
        loader.state_dict()
    with pytest.raises(TypeError, match="generator"):
        list(DataLoader(Locked(), 4, num_workers=2, workers="process"))


def test_a_fork_context_is_obeyed() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loader = DataLoader(Locked(), 4, num_workers=1, multiprocessing_context="fork")
        assert sum(len(batch) for batch in loader) == 12


class NoLength(Squares):
    def __len__(self) -> int:
        raise TypeError("unknown")


def test_a_dataset_without_a_length_has_a_state() -> None:
    loader = DataLoader(NoLength(), sampler=range(4), batch_size=2, workers="inline")
    batches = iter(loader)
    next(batches)
    again = DataLoader(NoLength(), sampler=range(4), batch_size=2, workers="inline")
    again.load_state_dict(loader.state_dict())
    assert [batch.tolist() for batch in again] == [[4, 9]]


def test_what_is_no_dataset_fails_as_it_does_with_torch() -> None:
    class Nothing:
        def __len__(self) -> int:
            return 3

    for make in (data.DataLoader, DataLoader):
        with pytest.raises(TypeError, match="not subscriptable"):
            list(make(Nothing()))


def test_threads_are_initialised_before_they_read() -> None:
    class Opened(Squares):
        place = threading.local()

        def __getitem__(self, index: int) -> Any:
            return self.place.number + data.get_worker_info().num_workers

    def initialise(number: int) -> None:
        Opened.place.number = 100

    loader = DataLoader(Opened(), 4, num_workers=2, workers="thread", worker_init_fn=initialise)
    assert {value for batch in loader for value in batch.tolist()} == {102}


def test_nested_tensors_travel() -> None:
    nested = torch.nested.nested_tensor([torch.ones(5), torch.ones(2)], layout=torch.jagged)
    loader = DataLoader([nested] * 4, num_workers=1, workers="process", collate_fn=list)
    assert [batch[0].unbind()[1].tolist() for batch in loader] == [[1, 1]] * 4


@pytest.mark.parametrize("how", [{}, {"num_workers": 1}, {"num_workers": 2, "workers": "thread"}])
def test_an_error_of_the_sampler_is_its_own(how: dict[str, Any]) -> None:
    def broken() -> Iterator[list[int]]:
        yield [0, 1]
        raise KeyError("the sampler")

    def failure() -> str:
        try:
            list(DataLoader(Squares(), batch_sampler=broken(), **{"num_workers": 0, **how}))
        except KeyError as error:
            return str(error)
        return ""

    assert failure() == "'the sampler'"


@pytest.mark.parametrize("how", [{}, {"num_workers": 1}])
@pytest.mark.parametrize(
    "dataset",
    [
        torch.arange(6),
        numpy.arange(6.0),
        numpy.arange(6, dtype=">i4"),
        data.TensorDataset(torch.arange(6), torch.ones(6)),
        torch.eye(4).to_sparse(),
    ],
    ids=["tensor", "array", "big-endian", "TensorDataset", "sparse"],
)
@pytest.mark.parametrize("batch_size", [None, 4])
def test_datasets_in_memory_of_every_kind(
    how: dict[str, Any], dataset: Any, batch_size: int | None
) -> None:
    def loaded(make: Any, **how: Any) -> Any:
        try:
            return [repr(batch) for batch in make(dataset, batch_size, **how)]
        except Exception as error:
            return type(error)

    assert loaded(DataLoader, **how) == loaded(data.DataLoader)
