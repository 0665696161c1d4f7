# SPDX-License-Identifier: BSD-3-Clause
"""What a job answers is read without trusting it."""

import json
from typing import Any

import pytest

from teamster.cli.top.answers import read_answer
from teamster.tasks.monitor.snapshot import take_snapshot
from teamster.tasks.pool import Pool


def read(**fields: Any) -> Any:
    return read_answer(json.dumps({"version": 1, **fields}).encode())


def test_a_real_snapshot() -> None:
    with Pool("serial") as pool:
        assert pool.map(abs, [-1, 2]) == [1, 2]
        answer = read_answer(json.dumps(take_snapshot()).encode())
    assert answer.pid > 0
    assert answer.memory_bytes > 0
    assert [(each.items, each.failures, each.calls) for each in answer.pools] == [(2, 0, ())]
    assert answer.pools[0].title == "serial(1)"
    assert sum(worker.items for worker in answer.pools[0].workers) == 2


@pytest.mark.parametrize(
    "line", [b"", b"nonsense", b"[1]", b"{}", b'"version"', b"\xff\xfe", b"[" * 100_000]
)
def test_nonsense(line: bytes) -> None:
    with pytest.raises(ValueError, match="makes no sense"):
        read_answer(line)


@pytest.mark.parametrize("version", [0, 2, "two", None, [1]])
def test_another_version(version: Any) -> None:
    with pytest.raises(ValueError, match="this teamster understands 1"):
        read_answer(json.dumps({"version": version}).encode())


def test_wrong_types_are_nothing() -> None:
    answer = read(
        pid="x",
        pools=[
            7,
            {
                "calls": 3,
                "workers": [None, {"since_s": "soon", "items": -4, "index": "y"}],
                "title": [],
            },
        ],
    )
    (pool,) = answer.pools
    assert answer.pid == 0
    assert (pool.title, pool.calls, pool.items) == ("[]", (), 0)
    (worker,) = pool.workers
    assert (worker.since_s, worker.items, worker.index, worker.pid) == (0.0, 0, 0, None)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "1" + 400 * "0"])
def test_numbers_that_are_none(text: str) -> None:
    assert read_answer(f'{{"version": 1, "pid": {text}, "now_ns": {text}}}'.encode()).now_s == 0.0


def test_nothing_in_a_text_moves_the_cursor() -> None:
    assert read(command="a\nb\t\x1b[31mred\x07").command == "a b ?[31mred?"


def test_memory_of_processes_is_added_once() -> None:
    workers = [
        {"pid": 7, "memory_bytes": 10},
        {"pid": 8, "memory_bytes": 20},
        {"pid": None, "memory_bytes": None},
    ]
    assert (
        read(memory_bytes=100, pools=[{"workers": workers}, {"workers": workers[:1]}]).memory_bytes
        == 130
    )


def test_the_oldest_call_comes_first() -> None:
    calls = [{"function": "new", "seconds": 1}, {"function": "old", "seconds": 9}]
    assert [call.function for call in read(pools=[{"calls": calls}]).pools[0].calls] == [
        "old",
        "new",
    ]
