# SPDX-License-Identifier: BSD-3-Clause
"""What threads would disturb is not read by them: "auto" looks before it takes any."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from teamster.data import DataLoader

COUNT = 320
READ_S = 0.003  # waits, so that threads would be what promises most
RECORD = 8  # bytes


class Records:
    """Record i is i; whoever reads another one in between changes what is read here."""

    def __len__(self) -> int:
        return COUNT


class OpenFile(Records):
    def __init__(self, folder: Path) -> None:
        path = folder / "records"
        path.write_bytes(b"".join(b"%08d" % number for number in range(COUNT)))
        self.file = path.open("rb")

    def __getitem__(self, index: int) -> int:
        self.file.seek(index * RECORD)
        time.sleep(READ_S)
        return int(self.file.read(RECORD))

    def close(self) -> None:
        self.file.close()


class Connection(Records):
    """It may be used by any thread, and by one at a time: a query ends another's."""

    def __init__(self, folder: Path) -> None:
        self.base = sqlite3.connect(folder / "base", check_same_thread=False)
        with self.base:
            self.base.execute("create table record (number integer primary key)")
            self.base.execute("create temp table wanted (number integer)")
            numbers = ((number,) for number in range(COUNT))
            self.base.executemany("insert into record values (?)", numbers)

    def __getitem__(self, index: int) -> int:
        self.base.execute("delete from wanted")
        self.base.execute("insert into wanted values (?)", (index,))
        time.sleep(READ_S)
        ((number,),) = self.base.execute("select number from record natural join wanted")
        return int(number)

    def close(self) -> None:
        self.base.close()


class Scratch(Records):
    """Fills a buffer that all samples share, and copies what is in it."""

    def __init__(self, folder: Path) -> None:
        self.buffer = bytearray(RECORD)

    def __getitem__(self, index: int) -> int:
        self.buffer[:] = b"%08d" % index
        time.sleep(READ_S)
        return int(bytes(self.buffer))

    def close(self) -> None:
        self.buffer.clear()


class HoldsNothing(Records):
    def __getitem__(self, index: int) -> int:
        time.sleep(READ_S)
        return index


def use_auto(dataset: Records, epochs: int = 2) -> tuple[set[str], str]:
    """Read all with "auto": the kinds of workers that it has used, and what it says in the end."""
    loader: DataLoader[Any] = DataLoader(dataset, 8)
    used = set()
    for _ in range(epochs):
        for number, batch in enumerate(loader):
            assert batch.tolist() == list(range(8 * number, 8 * number + 8))
            used.add(loader.report().plan.backend)
    return used, str(loader.explain())


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (OpenFile, "an open file"),
        (Connection, "a database connection"),
        (Scratch, "the call changes"),
    ],
)
def test_what_a_dataset_holds_is_not_disturbed_and_the_plan_names_it(
    make: Callable[[Path], Any], names: str, tmp_path: Path
) -> None:
    dataset = make(tmp_path)
    try:
        used, said = use_auto(dataset)
    finally:
        dataset.close()
    assert "thread" not in used, said
    assert names in said


def test_such_samples_would_go_to_threads_if_they_held_nothing() -> None:
    """Otherwise the tests above would show nothing."""
    used, said = use_auto(HoldsNothing())
    assert "thread" in used, said
