# SPDX-License-Identifier: BSD-3-Clause
"""Processes that read by threads of their own."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.utils import data

from teamster.data import DataLoader
from teamster.data.fetch import Fetch
from teamster.data.reading import Reader
from teamster.data.sampling import Seed
from teamster.data.staffing import feeder
from teamster.spine.plan.plan import Plan


class Together(data.Dataset[Any]):
    """From its ninth sample on, each is there when another one is being read, too."""

    def __init__(self, parties: int) -> None:
        self.parties, self.barrier = parties, threading.Barrier(parties)

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Any:
        if index >= 8:
            self.barrier.wait(30)
        return index

    def __reduce__(self) -> Any:
        return type(self), (self.parties,)


Make = Callable[[Any, int], Reader]


@pytest.fixture
def make() -> Iterator[Make]:
    made = []

    def reader_of(dataset: Any, threads: int) -> Reader:
        made.append(Reader(Fetch(dataset, list, True, seeded=threads != 3), threads))
        return made[-1]

    yield reader_of
    for each in made:
        each._pool.terminate()  # type: ignore[union-attr]


def test_threads_of_a_process_read_beside_each_other(make: Make) -> None:
    reader = make(Together(4), 4)
    reader.samples(range(8), Seed(0))  # is anything drawn?
    assert reader.samples(range(8, 40), Seed(0)).value == list(range(8, 40))


def test_so_many_workers_are_processes_with_threads() -> None:
    made: list[Any] = []
    for workers in (1, 2, 4, 8, 10):
        feed: Any = feeder(Fetch(range(9), list, True), None, None, None)(
            Plan("hybrid", workers, "asked for"), 0
        )
        made.append((feed.pool.workers, feed.threads))
        feed.close()
    assert made == [(1, 1), (1, 2), (1, 4), (2, 4), (2, 5)]


class Draws(Together):
    def __getitem__(self, index: int) -> Any:
        return torch.rand(1).item(), threading.get_ident(), os.getpid()


def test_random_numbers_are_drawn_by_one_thread_of_each_process() -> None:
    loader = DataLoader(Draws(1), 10, num_workers=4, workers="hybrid")
    places = [batch[1:] for batch in loader]
    threads = {tuple(pair) for each in places for pair in torch.stack(each).T.tolist()}
    assert len(threads) == len({process for _, process in threads})


@pytest.mark.parametrize("error", [KeyError, OSError])
def test_the_first_error_of_several_threads(error: type[Exception], make: Make) -> None:
    def read(index: int) -> int:
        if index % 3 == 2:
            time.sleep(0.1 if index < 6 else 0)  # the last one is the first in time
            raise error(index)
        return index

    reader = make(Calls(read), 3)
    with pytest.raises(error, match="2") as caught:
        reader.samples(range(9), Seed(0))
    assert any("sample 2" in note for note in caught.value.__notes__)


class Calls:
    def __init__(self, function: Callable[[int], Any]) -> None:
        self.function = function

    def __getitem__(self, index: int) -> Any:
        return self.function(index)
