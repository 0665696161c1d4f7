# SPDX-License-Identifier: BSD-3-Clause
"""Arguments of torch's loader mean here what they mean there, whoever reads."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from itertools import islice
from typing import Any

import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils import data

from teamster.data import DataLoader, loader_report
from tests.conftest import RunScript

KINDS = ["inline", "thread", "process"]
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),  # of torch's own workers
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
]


class Rows(data.Dataset[Any]):
    def __init__(self, count: int = 11) -> None:
        self.count = count
        self.offset = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.offset + index


class Stream(data.IterableDataset[Any]):
    """Each worker gives so many rows."""

    def __init__(self, count: int = 3) -> None:
        self.count = count
        self.offset = 0

    def __iter__(self) -> Iterator[Any]:
        info = data.get_worker_info()
        first = 0 if info is None else info.id * 100
        for number in range(first, first + self.count):
            yield self.offset + number


def listed(loader: Any) -> list[Any]:
    return [batch.tolist() for batch in loader]


def asked(kind: str, count: int = 1) -> dict[str, Any]:
    """The arguments for such workers."""
    return {"workers": kind, "num_workers": 0 if kind == "inline" else count}


# -------------------------------------------------------------------------------- pinned memory


class Batch:
    """Of a class of the program's own: torch's loader asks it for itself in pinned memory."""

    def __init__(self, samples: list[int]) -> None:
        self.rows = samples
        self.pinned_in: list[int] = []

    def pin_memory(self) -> Batch:
        self.pinned_in.append(os.getpid())
        return self


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where torch asks for one, before it pins anything."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)


@pytest.mark.usefixtures("accelerator")
@pytest.mark.parametrize("kind", KINDS)
def test_batches_pin_themselves(kind: str) -> None:
    loader = DataLoader(Rows(), 4, collate_fn=Batch, pin_memory=True, **asked(kind))
    found = list(loader)
    assert [batch.rows for batch in found] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert [batch.pinned_in for batch in found] == [[os.getpid()]] * 3


@pytest.mark.usefixtures("accelerator")
@pytest.mark.parametrize("workers", [0, 1])
def test_batches_of_an_iterable_dataset_pin_themselves(workers: int) -> None:
    loader = DataLoader(Stream(), 2, collate_fn=Batch, pin_memory=True, num_workers=workers)
    found = list(loader)
    assert [batch.rows for batch in found] == [[0, 1], [2]]
    assert [batch.pinned_in for batch in found] == [[os.getpid()]] * 2


@pytest.mark.usefixtures("accelerator")
def test_a_batch_of_what_two_workers_had_left_pins_itself() -> None:
    how: Any = {"collate_fn": Batch, "pin_memory": True, "drop_last": True, "num_workers": 2}
    found = list(DataLoader(Stream(3), 2, **how))
    assert [batch.rows for batch in found] == [[0, 1], [100, 101], [2, 102]]
    assert [batch.pinned_in for batch in found] == [[os.getpid()]] * 3


# -------------------------------------------------------------------------------- start methods


class Started(Rows):
    """Beside each row: whether the process that reads it is a copy of its parent."""

    def __getitem__(self, index: int) -> Any:
        me, parent = psutil.Process(), psutil.Process(os.getppid())
        return torch.full((2,), float(index)), me.cmdline() == parent.cmdline()


class StartedStream(Stream):
    def __iter__(self) -> Iterator[Any]:
        return map(Started().__getitem__, super().__iter__())


@pytest.mark.parametrize(
    ("context", "dataset"),
    [
        ("spawn", Started()),
        ("forkserver", Started()),
        (multiprocessing.get_context("forkserver"), Started()),
        ("forkserver", StartedStream(11)),
    ],
    ids=["spawn", "forkserver", "a context", "iterable"],
)
def test_a_start_method_is_obeyed(context: Any, dataset: Any) -> None:
    loader = DataLoader(dataset, 4, num_workers=1, multiprocessing_context=context)
    ours, theirs = list(loader), list(data.DataLoader(dataset, 4))
    assert [rows.tolist() for rows, _ in ours] == [rows.tolist() for rows, _ in theirs]
    copies = {each for _, are_copies in ours for each in are_copies.tolist()}
    assert copies == {context != "spawn"}


FORKED = """
import os, threading
from torch.utils import data
from teamster.data import DataLoader


class Rows(data.Dataset):
    def __init__(self):
        self.lock, self.square = threading.Lock(), lambda number: number * number

    def __len__(self):
        return 7

    def __getitem__(self, index):
        with self.lock:
            return self.square(index), os.getppid()


class Stream(data.IterableDataset, Rows):
    def __iter__(self):
        return map(self.__getitem__, range(7))


for dataset in Rows(), Stream():
    found = list(DataLoader(dataset, 3, num_workers=1, multiprocessing_context="fork"))
    parents = {parent for _, parents in found for parent in parents.tolist()}
    print([squares.tolist() for squares, _ in found], parents == {os.getpid()})
"""
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("env", [ONE_THREAD, {}], ids=["one thread", "with NumPy's"])
def test_a_fork_gives_workers_what_does_not_pickle(
    env: dict[str, str], run_script: RunScript
) -> None:
    """A fresh program, in which no threads of OpenMP run; those of NumPy's OpenBLAS, which the
    import of torch starts where there are several cores, are no harm: it has a handler for forks.
    """
    result = run_script(FORKED, timeout=60, env=env)
    assert (result.stderr, result.returncode) == ("", 0)  # of torch's own workers it would warn
    assert result.stdout == "[[0, 1, 4], [9, 16, 25], [36]] True\n" * 2


# ------------------------------------------------------------------------------ from epoch to epoch


class Pids(Rows):
    def __getitem__(self, index: int) -> Any:
        return os.getpid()


def pids(loader: Any) -> set[int]:
    return {pid for batch in loader for pid in batch.tolist()}


def test_processes_stay_where_they_are_asked_to() -> None:
    stay = DataLoader(Pids(), 4, persistent_workers=True, **asked("process"))
    first = pids(stay)
    assert first == pids(stay) != {os.getpid()}
    del stay
    go = DataLoader(Pids(), 4, **asked("process"))
    first = pids(go)
    assert not first & pids(go)


def distributed(make: Any, rank: int, drop_last: bool, **how: Any) -> Any:
    sampler = data.DistributedSampler(Rows(), 2, rank, shuffle=True, seed=3, drop_last=drop_last)
    return make(Rows(), 2, sampler=sampler, drop_last=drop_last, **how)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_each_of_two_programs_has_its_part_of_each_epoch(kind: str, drop_last: bool) -> None:
    how = {**asked(kind), "persistent_workers": kind == "process"}
    seen: list[set[int]] = [set(), set()]  # by epoch
    for rank in range(2):
        ours = distributed(DataLoader, rank, drop_last, **how)
        theirs = distributed(data.DataLoader, rank, drop_last)
        for epoch, rows in enumerate(seen):
            ours.sampler.set_epoch(epoch)
            theirs.sampler.set_epoch(epoch)
            found = listed(ours)
            assert found == listed(theirs)
            rows.update(row for batch in found for row in batch)
    kept = 2 * 2 * 2 if drop_last else 11  # two programs with two whole batches of two each
    assert [len(rows) for rows in seen] == [kept, kept]


class Ticks(Rows):
    """Reading the first sample of an epoch takes as long as is said; any other 10 ms."""

    def __init__(self) -> None:
        super().__init__(3)
        self.now_s = self.first_s = 0.0

    def __getitem__(self, index: int) -> Any:
        self.now_s += self.first_s if index == 0 else 0.01
        return index


class TicksStream(data.IterableDataset[Any]):
    def __init__(self) -> None:
        self.rows = Ticks()

    def __iter__(self) -> Iterator[Any]:
        return (self.rows[index] for index in range(3))


@pytest.mark.parametrize("make", [Ticks, TicksStream])
def test_the_first_batch_is_that_of_the_latest_epoch(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make()
    rows: Ticks = getattr(dataset, "rows", dataset)
    monkeypatch.setattr(loader_report, "perf_counter", lambda: rows.now_s)
    loader = DataLoader(dataset, 1, workers="inline")
    for rows.first_s in (0.25, 0.03, 0.5):
        assert len(list(loader)) == 3
        assert loader.report().first_batch_s == pytest.approx(rows.first_s)


# ------------------------------------------------------------------------------- worker_init_fn


def mark(worker: int) -> None:
    info = data.get_worker_info()
    assert info is not None
    info.dataset.offset = 1_000 * (worker + 1)


@pytest.mark.parametrize("dataset", [Rows(), Stream(7)], ids=["map-style", "iterable"])
def test_a_dataset_may_be_marked_by_its_worker(dataset: Any) -> None:
    how: Any = {"batch_size": 4, "num_workers": 1, "worker_init_fn": mark}
    theirs = listed(data.DataLoader(dataset, **how))
    assert theirs[0] == [1_000, 1_001, 1_002, 1_003]
    assert listed(DataLoader(dataset, **how)) == theirs
    assert dataset.offset == 0  # each worker has its own


class NoCamera(Exception):
    pass


def refuse(worker: int) -> None:
    raise NoCamera(f"worker {worker} has no camera")


@pytest.mark.parametrize(
    ("dataset", "kind"),
    [(Rows(), "thread"), (Rows(), "process"), (Stream(), "auto")],
    ids=["thread", "process", "iterable"],
)
def test_an_error_of_worker_init_fn_is_its_own(dataset: Any, kind: Any) -> None:
    found: tuple[Any, ...] = ()
    try:
        list(DataLoader(dataset, 4, num_workers=1, workers=kind, worker_init_fn=refuse))
    except Exception as caught:  # nothing is kept of its traceback
        found = type(caught), str(caught)
    assert found == (NoCamera, "worker 0 has no camera")


@pytest.mark.parametrize("kind", ["inline", "thread", "process"])
def test_two_iterators_of_one_loader_do_not_disturb_each_other(kind: Any) -> None:
    loader = DataLoader(Rows(12), 4, num_workers=0 if kind == "inline" else 1, workers=kind)
    pairs = list(zip(iter(loader), iter(loader), strict=True))
    assert len(pairs) == 3
    assert all(torch.equal(one, other) for one, other in pairs)


# ------------------------------------------------------------------------------ any of them at once


class Resumed:
    """Loaders of some length, of which the second goes on where the first was left."""

    def __init__(self, count: int, batch_size: int, prefetch: int, drop_last: bool) -> None:
        self.dataset = Rows(count)
        self.how: dict[str, Any] = {"batch_size": batch_size, "drop_last": drop_last}
        self.prefetch = prefetch

    def loader(self, kind: str, workers: int) -> DataLoader:
        ahead: dict[str, Any] = {} if kind == "inline" else {"prefetch_factor": self.prefetch}
        return DataLoader(self.dataset, **self.how, **ahead, **asked(kind, workers))

    def rows(self, kinds: tuple[str, str], workers: tuple[int, int], stop: int) -> list[int]:
        first, second = map(self.loader, kinds, workers)
        batches = iter(first)
        given = [batch.tolist() for batch in islice(batches, min(stop, len(first)))]
        second.load_state_dict(first.state_dict())
        del batches
        return [row for batch in given + listed(second) for row in batch]


@settings(max_examples=40, deadline=None)
@given(
    kinds=st.tuples(*[st.sampled_from(["inline", "thread"])] * 2),
    workers=st.tuples(*[st.integers(1, 3)] * 2),
    count=st.integers(0, 40),
    batch_size=st.integers(1, 12),
    prefetch=st.integers(1, 4),
    drop_last=st.booleans(),
    stop=st.integers(0, 40),
)
def test_wherever_one_stops_each_row_comes_once_and_in_order(
    kinds: tuple[str, str],
    workers: tuple[int, int],
    count: int,
    batch_size: int,
    prefetch: int,
    drop_last: bool,
    stop: int,
) -> None:
    kept = count - count % batch_size if drop_last else count
    resumed = Resumed(count, batch_size, prefetch, drop_last)
    assert resumed.rows(kinds, workers, stop) == list(range(kept))
