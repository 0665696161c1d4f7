# SPDX-License-Identifier: BSD-3-Clause
"""Which worker reads what, and when: rows of the oldest batch first, whoever waits or dies."""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils import data

from teamster.data import DataLoader
from teamster.data.arguments import cores
from teamster.data.rows import RowsPerTask
from tests.conftest import WaitUntil

KINDS = ["thread", "process"]
PATIENCE_S = 20.0  # of a sample that waits for others; nobody waits so long but for a fault


class Logged(data.Dataset[Any]):
    """Each read is a line of a file, which all processes append to."""

    def __init__(self, file: Path, count: int) -> None:
        self.file = file
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        log = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(log, f"{index}\n".encode())
        os.close(log)
        self.then(index)
        return index

    def then(self, index: int) -> None:
        """What a sample does before it is there."""

    @property
    def begun(self) -> list[int]:
        """The samples that were read so far, as often as they were."""
        lines = self.file.read_text().split() if self.file.exists() else []
        return [int(line) for line in lines]


class Waits(Logged):
    """Some samples are not there before others have been read.

    Attributes:
        for_others: by the index of one that waits.
    """

    def __init__(self, file: Path, count: int, for_others: dict[int, range]) -> None:
        super().__init__(file, count)
        self.for_others = for_others

    def then(self, index: int) -> None:
        wanted, until = set(self.for_others.get(index, ())), time.monotonic() + PATIENCE_S
        while missing := wanted.difference(self.begun):
            if time.monotonic() > until:
                raise TimeoutError(f"while sample {index} waited nobody read {sorted(missing)}")
            time.sleep(0.005)


def load(kind: Any, dataset: Any, batch_size: int, **how: Any) -> DataLoader:
    return DataLoader(dataset, batch_size, num_workers=2, workers=kind, **how)


def rows_of(loader: DataLoader) -> list[int]:
    return [row for batch in loader for row in batch.tolist()]


def taken(batches: Iterator[Any]) -> list[Any]:
    """All batches; in place of an error all that a program shows of it."""
    found: list[Any] = []
    while True:
        try:
            found.append(next(batches).tolist())
        except StopIteration:
            return found
        except Exception as error:
            found.append("".join(traceback.format_exception(error)))


# ---------------------------------------------------------------------------------- who reads what


def test_rows_of_one_batch_are_read_by_several_threads() -> None:
    meeting = threading.Barrier(2, timeout=PATIENCE_S)

    class Meets(data.Dataset[Any]):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> int:
            if index:  # the very first sample is read alone: whether it draws random numbers
                meeting.wait()
            return index

    batches = DataLoader(Meets(), batch_sampler=[[0], [1, 2]], num_workers=2, workers="thread")
    assert [batch.tolist() for batch in batches] == [[0], [1, 2]]


def test_rows_of_one_batch_are_read_by_several_processes(tmp_path: Path) -> None:
    dataset = Waits(tmp_path / "log", 2, {0: range(1, 2), 1: range(1)})
    assert rows_of(load("process", dataset, 2)) == [0, 1]


def test_a_slow_first_row_does_not_keep_the_next_batch_from_being_read(tmp_path: Path) -> None:
    """Two batches are open as long as it is not known what one takes.

    Of threads one reads the first four rows alone, to see whether they draw random numbers.
    """
    dataset = Waits(tmp_path / "log", 12, {0: range(1, 8)})
    found = taken(iter(load("process", dataset, 4)))
    assert found == [list(range(first, first + 4)) for first in (0, 4, 8)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_slow_row_does_not_keep_later_batches_from_being_read(kind: str, tmp_path: Path) -> None:
    """Row 0 of batch 1 comes when the rest of its batch, and all of the next three, are read."""
    dataset = Waits(tmp_path / "log", 28, {4: range(5, 20)})
    assert rows_of(load(kind, dataset, 4, prefetch_factor=2)) == list(range(28))


@pytest.mark.parametrize("kind", KINDS)
def test_all_that_may_be_ahead_is_read_while_the_consumer_is_elsewhere(
    kind: str, tmp_path: Path, wait_until: WaitUntil
) -> None:
    dataset = Logged(tmp_path / "log", 100)
    loader = load(kind, dataset, 2, prefetch_factor=8)
    batches = iter(loader)

    def take_one_and_wait(taken: int) -> int:
        """Gives how many batches were ahead; nobody calls `next` until all of them are read."""
        assert next(batches).tolist() == [2 * taken, 2 * taken + 1]
        ahead: int = len(batches._open)
        rows = set(range(2 * (taken + 1 + ahead)))
        wait_until(lambda: set(dataset.begun) >= rows, 30, f"{sorted(rows)} are read")
        assert set(dataset.begun) == rows
        return ahead

    take_one_and_wait(0)
    assert take_one_and_wait(1) == 8 * 2  # far more tasks than workers
    assert [row for batch in batches for row in batch.tolist()] == list(range(4, 100))


# -------------------------------------------------------------------------------- deaths and errors


class Deadly(Logged):
    """A sample that kills its process when it is read for the first time."""

    def then(self, index: int) -> None:
        if index == 9 and self.begun.count(9) == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def test_after_a_death_only_what_was_lost_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By measuring it would be as many rows as take a millisecond
    monkeypatch.setattr(RowsPerTask, "of", lambda self, size, *, urgent=False: 4)
    dataset = Deadly(tmp_path / "log", 48)
    assert rows_of(load("process", dataset, 16)) == list(range(48))
    again = {index: times for index, times in Counter(dataset.begun).items() if times > 1}
    assert again == {8: 2, 9: 2}  # the task had rows 8 to 11, and died at the second
    assert set(dataset.begun) == set(range(48))


class HoldsALock(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class CannotBeRebuilt(Exception):
    def __new__(cls, *arguments: Any, here: bool = False) -> CannotBeRebuilt:
        if not here:
            raise TypeError("only where it was made")
        return super().__new__(cls, *arguments)

    def __init__(self, text: str, *, here: bool = False) -> None:
        super().__init__(text)


def bad(index: int) -> int:
    """Some samples fail, with errors that do not travel as they are."""
    if index == 2:
        raise HoldsALock(f"broken file {index}")
    if index == 5:
        raise CannotBeRebuilt(f"broken file {index}", here=True)
    return index


class Bad(data.Dataset[Any]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        return bad(index)


class Resumes:
    """An iterator that goes on after an error."""

    def __init__(self) -> None:
        self.index = -1

    def __iter__(self) -> Resumes:
        return self

    def __next__(self) -> int:
        self.index += 1
        if self.index == 8:
            raise StopIteration
        return bad(self.index)


class BadStream(data.IterableDataset[Any]):
    def __iter__(self) -> Iterator[int]:
        return Resumes()


@pytest.mark.parametrize("dataset", [Bad(), BadStream()], ids=["map-style", "iterable"])
def test_errors_that_do_not_pickle_arrive_with_their_text(dataset: Any) -> None:
    found = taken(iter(DataLoader(dataset, 1, num_workers=1)))
    for index in (2, 5):
        text, found[index] = found[index], [index]
        assert isinstance(text, str)
        assert f"broken file {index}" in text
        assert isinstance(dataset, BadStream) or f"in sample {index} of the dataset" in text
    assert found == [[index] for index in range(8)]


def test_errors_that_do_not_pickle_are_passed_over() -> None:
    loader = load("process", Bad(), 4, on_error="skip")
    assert [batch.tolist() for batch in loader] == [[0, 1, 3], [4, 6, 7]]
    assert [(each.index, each.text) for each in loader.report().failures] == [
        (2, "broken file 2"),
        (5, "broken file 5"),
    ]


# ----------------------------------------------------------------------------------- native threads


class Threads(data.Dataset[Any]):
    """Law 6: how many threads an operation of torch's has, where the sample is read."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Any:
        torch.ones(64, 64) @ torch.ones(64, 64)
        return torch.get_num_threads()


@pytest.mark.parametrize("kind", KINDS)
def test_workers_share_the_cores_and_the_consumer_keeps_its_own(kind: str) -> None:
    own, share = torch.get_num_threads(), max(1, cores() // 2)
    for batch in load(kind, Threads(), 2):
        assert set(batch.tolist()) == {share}  # 1 where there are as many workers as cores
        assert torch.get_num_threads() == own
    assert torch.get_num_threads() == own
