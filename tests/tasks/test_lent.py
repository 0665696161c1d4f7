# SPDX-License-Identifier: BSD-3-Clause
"""Inputs whose items are good until the next is taken.

In the caller one by one, for workers copied, or refused.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import teamster as ts

HERE = ["serial", "auto"]
ELSEWHERE = ["thread", "process"]


def groups() -> Iterator[Any]:
    return itertools.groupby(range(400), key=lambda number: number // 4)


def rows() -> Iterator[list[int]]:
    row = [0, 0]
    for number in range(100):
        row[:] = number, -number
        yield row


def numbered() -> Iterator[Any]:
    return enumerate(rows())


def arrays() -> Iterator[Any]:
    buffer = np.zeros(8)
    for number in range(100):
        buffer[:] = number
        yield buffer[2:4]


def views() -> Iterator[memoryview]:
    buffer = bytearray(8)
    for number in range(100):
        buffer[0] = number
        yield memoryview(buffer)[:2]


def files() -> Iterator[Any]:
    for _ in range(100):
        with open(__file__) as file:
            yield file


def mixed(item: Any) -> Any:
    time.sleep(0.001)
    if hasattr(item, "readline"):
        return item.readline()
    return [[*part] if hasattr(part, "__iter__") else part for part in item]


def unchanged(backend: str, lazy: bool, give: Callable[[], Iterator[Any]]) -> bool:
    expected = [mixed(item) for item in give()]
    with ts.Pool(backend) as pool:  # type: ignore[arg-type]
        return list((pool.imap if lazy else pool.map)(mixed, give())) == expected


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("backend", HERE + ELSEWHERE)
@pytest.mark.parametrize("give", [groups, rows, numbered, arrays])
def test_what_can_be_copied_means_what_it_means_in_a_loop(
    give: Any, backend: str, lazy: bool
) -> None:
    assert unchanged(backend, lazy, give)


@pytest.mark.parametrize("backend", HERE)
@pytest.mark.parametrize("give", [views, files])
def test_what_cannot_stays_in_the_caller(give: Any, backend: str) -> None:
    assert unchanged(backend, False, give)


@pytest.mark.parametrize("backend", ELSEWHERE)
@pytest.mark.parametrize(
    ("give", "why"),
    [(views, "changes what it gave .memoryview"), (files, "closes what it gave .TextIO")],
)
def test_or_is_refused_in_one_line(give: Any, why: str, backend: Any) -> None:
    with pytest.raises(ts.UsageError, match=f"^this input {why}"):
        ts.map(mixed, give(), backend=backend)


@pytest.mark.parametrize("backend", HERE)
def test_the_caller_pulls_one_and_runs_one(backend: Any) -> None:
    """Whatever the items are: what the function does is seen by the input, and vice versa."""
    log: list[tuple[str, int]] = []

    def give() -> Iterator[int]:
        for number in range(3_000):
            log.append(("pulled", number))
            yield number

    results = ts.map(
        lambda number: log.append(("ran", number)) or number,
        give(),
        backend=backend,
        allow=("serial", "thread"),
    )
    assert results == list(range(3_000))
    assert log == [(what, number) for number in range(3_000) for what in ("pulled", "ran")]


@pytest.mark.parametrize("backend", HERE)
def test_errors_of_the_input_and_of_items_are_told_apart(backend: Any) -> None:
    def give() -> Iterator[int]:
        yield from range(500)
        raise LookupError("the input's own")

    def stop(number: int) -> int:
        if number % 100 == 7:
            raise StopIteration
        if number % 100 == 8:
            raise LookupError("an item's")
        return number

    results = ts.imap(stop, give(), backend=backend, on_error="return")
    seen = list(itertools.islice(results, 500))
    names = [type(each).__name__ for each in seen[6:10]]
    assert names == ["int", "RemoteError", "LookupError", "int"]
    assert sum(isinstance(each, Exception) for each in seen) == 10
    with pytest.raises(LookupError, match="the input's own"):
        next(results)


def test_the_same_object_again_is_no_reason_to_stay(tmp_path: Path) -> None:
    with ts.Pool("process", workers=2) as pool:
        assert pool.map(mixed, itertools.repeat([1, 2], 50)) == [[1, 2]] * 50
