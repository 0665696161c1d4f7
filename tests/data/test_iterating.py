# SPDX-License-Identifier: BSD-3-Clause
"""Processes that iterate over their parts of an iterable dataset."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils import data
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

import teamster as ts
from teamster.data import DataLoader
from teamster.data.iterating import WorkerStreams
from tests.conftest import RunScript

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
]


class Parts(data.IterableDataset[Any]):
    """Worker i has so many samples."""

    def __init__(self, *counts: int) -> None:
        self.counts = counts

    def __iter__(self) -> Iterator[Any]:
        info = data.get_worker_info()
        assert info is not None
        for number in range(self.counts[info.id]):
            yield self.sample(info.id * 100 + number)

    def sample(self, value: int) -> Any:
        return value


class Rich(Parts):
    def sample(self, value: int) -> Any:
        return {"x": torch.full((3,), float(value)), "random": torch.rand(2), "name": str(value)}


@pytest.mark.parametrize("counts", [(7,), (9, 2), (0, 5), (3, 12, 1), (0, 0)])
@pytest.mark.parametrize(
    "how",
    [
        {"batch_size": 4},
        {"batch_size": 2, "prefetch_factor": 1},
        {"batch_size": None, "prefetch_factor": 5},
        {"batch_size": 3, "persistent_workers": True},
    ],
)
def test_batches_and_their_order_are_torchs(counts: tuple[int, ...], how: Any) -> None:
    found: list[Any] = []
    for kind in (DataLoader, data.DataLoader):
        torch.manual_seed(3)
        loader: Any = kind(Rich(*counts), num_workers=len(counts), **how)
        found.append([[repr(batch) for batch in loader] for _ in range(2)])
        del loader
    assert found[0] == found[1]


def test_in_any_order_each_batch_comes_once() -> None:
    loader = DataLoader(Parts(9, 2, 5), 1, num_workers=3, in_order=False)
    seen = sorted(batch.item() for batch in loader)
    assert seen == [*range(9), 100, 101, *range(200, 205)]


class Who(Parts):
    def sample(self, value: int) -> Any:
        worker = ts.current_worker()
        return os.getppid(), worker.kind if worker is not None else ""


def test_they_are_not_forks_of_the_program() -> None:
    ((parents, kinds),) = DataLoader(Who(3), 3, num_workers=1)
    assert set(kinds) == {"process"}
    assert os.getpid() not in parents.tolist()


class Fails(Parts):
    def sample(self, value: int) -> Any:
        if value == 2:
            raise OSError(f"sample {value} is broken")
        return value


def test_after_an_error_the_other_workers_go_on() -> None:
    seen = []
    batches = iter(DataLoader(Fails(4, 4), 1, num_workers=2))
    for _ in range(4):
        seen.append(next(batches).item())
    with pytest.raises(OSError, match="sample 2 is broken"):
        next(batches)
    assert seen == [0, 100, 1, 101]
    assert [batch.item() for batch in batches] == [102, 103]


class Broken(Parts):
    def __iter__(self) -> Iterator[Any]:
        raise LookupError("no such stream")


def test_an_iterator_that_cannot_be_made() -> None:
    batches = iter(DataLoader(Broken(), 2, num_workers=1))
    with pytest.raises(LookupError, match="no such stream"):
        next(batches)
    assert list(batches) == []


class Pids(Parts):
    def sample(self, value: int) -> Any:
        return value, os.getpid()


def test_a_worker_that_is_killed_ends_the_epoch_and_gives_nothing_twice() -> None:
    loader = DataLoader(Pids(1_000, 1_000), 1, num_workers=2)
    batches = iter(loader)
    first, second = next(batches), next(batches)
    os.kill(int(first[1]), signal.SIGKILL)
    seen = [int(first[0]), int(second[0])]
    with pytest.raises(RuntimeError, match=r"SIGKILL|died between two batches") as caught:
        while True:
            seen.append(int(next(batches)[0]))
    assert isinstance(caught.value, ts.WorkerDied)
    assert len(set(seen)) == len(seen)
    assert list(batches) == []
    assert len(list(loader)) == 2_000  # another epoch has other workers


class Stuck(Parts):
    def sample(self, value: int) -> Any:
        time.sleep(100 if value == 1 else 0)
        return value


class LargeStream(Parts):
    def sample(self, value: int) -> Any:
        return torch.full((1_000,), float(value))


@pytest.mark.parametrize(("nbytes", "most"), [(80_000, 6), (40_000, 4), (1, 2)])
def test_what_is_ahead_is_bounded_in_bytes(nbytes: int, most: int) -> None:
    """Of each worker one batch at least; two workers, three batches each."""
    how: dict[str, Any] = {"num_workers": 2, "prefetch_factor": 3, "prefetch_bytes": nbytes}
    batches = iter(DataLoader(LargeStream(40, 40), 2, **how))

    def ahead() -> int:
        return sum(map(len, batches._inner._asked.values()))

    assert ahead() == 2  # what a batch takes is not known yet
    seen = [ahead() for _ in batches]
    assert max(seen[:20]) == most
    assert len(seen) == 40


def test_a_batch_that_does_not_come_in_time() -> None:
    batches = iter(DataLoader(Stuck(2), 1, num_workers=1, timeout=2))
    first = None
    while first is None:  # its process may take long to start
        with contextlib.suppress(RuntimeError):
            first = next(batches)
    with pytest.raises(RuntimeError, match="no batch came within timeout=2 s") as caught:
        next(batches)
    text = str(caught.value)
    del caught, batches  # an error leads back to them
    assert "time.sleep(100 if value == 1 else 0)" in text  # where its worker is


class Local(Parts):
    def __init__(self, *counts: int) -> None:
        super().__init__(*counts)
        self.lock = threading.Lock()


def test_what_only_a_fork_can_have_is_read_by_torchs_own_workers() -> None:
    torch.manual_seed(5)
    with pytest.warns(UserWarning, match=r"torch's own workers read .* by a fork:.*lock"):
        batches = iter(DataLoader(Local(4), 2, num_workers=1))
    assert isinstance(batches._inner, _MultiProcessingDataLoaderIter)  # type: ignore[attr-defined]
    assert [batch.tolist() for batch in batches] == [[0, 1], [2, 3]]


def test_an_iterator_that_is_let_go_of_leaves_nothing() -> None:
    loader = DataLoader(Pids(1_000), 1, num_workers=1)
    batches = iter(loader)
    next(batches)
    assert isinstance(batches._inner, WorkerStreams)  # type: ignore[attr-defined]
    assert loader.report().memory_bytes > 1_000_000
    del batches  # that no process is left, each test is looked at for


MANY = """
import os, resource, torch
from torch.utils import data
from teamster.data import DataLoader

resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))


class Rows(data.IterableDataset):
    def __iter__(self):
        info = data.get_worker_info()
        for number in range(info.id, 3_000, info.num_workers):
            yield torch.full((20_000,), float(number)), number


def descriptors():
    return len(os.listdir("/proc/self/fd"))


kept, before = [], None
for place, (rows, numbers) in enumerate(DataLoader(Rows(), 1, num_workers=2)):
    assert rows[0, 9] == numbers[0] == place
    if place % 10 == 0:
        kept.append((rows, place))
    if place == 100:
        before = descriptors()
assert place == 2_999
assert descriptors() <= before + 4, (before, descriptors())
assert all((rows == number).all() for rows, number in kept)
"""


def test_descriptors_do_not_grow_with_batches(run_script: RunScript) -> None:
    result = run_script(MANY, timeout=120)
    assert result.returncode == 0, result.stderr


LIVE = """
import time, sys
from torch.utils import data
from teamster.data import DataLoader


class Live(data.IterableDataset):
    def __iter__(self):
        yield 1
        yield 2
        time.sleep(1e6)


class Slow:
    def __len__(self):
        return 100

    def __getitem__(self, index):
        time.sleep(1e6 if index > 1 else 0)
        return index


dataset = Live() if sys.argv[1] == "live" else Slow()
batches = iter(DataLoader(dataset, batch_size=None, num_workers=1, workers=sys.argv[2]))
print(next(batches), next(batches), flush=True)
"""


@pytest.mark.parametrize("how", [("live", "auto"), ("slow", "process")])
def test_a_program_ends_with_batches_on_their_way(how: Any, run_script: RunScript) -> None:
    result = run_script(LIVE, *how, timeout=30)
    assert (result.returncode, result.stdout) == (0, "1 2\n" if how[0] == "live" else "0 1\n")


def test_workers_that_stay_have_successors_in_the_next_epoch() -> None:
    loader = DataLoader(Pids(500, 500), 1, num_workers=2, persistent_workers=True)
    for epoch in range(3):
        batches = iter(loader)
        first = next(batches)
        if epoch == 0:
            os.kill(int(first[1]), signal.SIGKILL)
            with pytest.raises(ts.WorkerDied):
                list(batches)
        else:
            assert len(list(batches)) == 999
    del batches, loader


class LocalCollate:
    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __call__(self, samples: list[Any]) -> Any:
        return samples


def test_a_collation_that_only_a_fork_can_have() -> None:
    with pytest.warns(UserWarning, match=r"torch's own workers read .* by a fork:.*lock"):
        batches = iter(DataLoader(Parts(4), 2, num_workers=1, collate_fn=LocalCollate()))
    assert list(batches) == [[0, 1], [2, 3]]


class TimesOut(Parts):
    def __iter__(self) -> Iterator[Any]:
        info = data.get_worker_info()
        assert info is not None
        return Resumes(info.id, self.counts[info.id])


class Resumes:
    """An iterator that goes on after an error, as one over a socket may."""

    def __init__(self, worker: int, count: int) -> None:
        self.worker, self.left = worker, count

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> int:
        self.left -= 1
        if self.left == 2 and not self.worker:
            raise TimeoutError("the socket's own")
        if self.left < 0:
            raise StopIteration
        return self.worker * 100 + self.left


def test_an_error_of_the_iterators_own_does_not_end_it() -> None:
    batches = iter(DataLoader(TimesOut(4, 4), batch_size=None, num_workers=2))
    seen: list[Any] = []
    for _ in range(8):
        try:
            seen.append(next(batches))
        except TimeoutError as error:
            seen.append(str(error))
    assert seen == [3, 103, "the socket's own", 102, 1, 101, 0, 100]
    assert list(batches) == []


class Late(Parts):
    def sample(self, value: int) -> Any:
        time.sleep(2.0 if value == 1 else 0)
        return value


def test_a_batch_that_came_too_late_is_given_later() -> None:
    batches = iter(DataLoader(Late(3), batch_size=None, num_workers=1, timeout=0.5))
    seen: list[Any] = []
    while len(seen) < 3:
        with contextlib.suppress(RuntimeError):
            seen.append(next(batches))
    assert seen == [0, 1, 2]


def test_each_has_one_native_thread() -> None:
    class Threads(Parts):
        def sample(self, value: int) -> Any:
            return torch.get_num_threads()

    assert [batch.item() for batch in DataLoader(Threads(1, 1), 1, num_workers=2)] == [1, 1]
