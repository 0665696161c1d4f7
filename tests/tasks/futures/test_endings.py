# SPDX-License-Identifier: BSD-3-Clause
"""Futures whose pool, thread or program ends: they are told."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest

import teamster as ts
from tests.tasks.test_futures import Kind, hold


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_what_the_reader_cannot_do_ends_the_calls(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread of ours that cannot go on tells those who wait for it."""
    with ts.Pool(kind, workers=1) as pool:  # type: ignore[arg-type]
        assert pool.submit(abs, -1).result(timeout=10) == 1
        future = pool.submit(hold, 0.2)
        assert pool._calls._submitter is not None
        monkeypatch.setattr(pool._calls._submitter.team._reports, "handle", lambda event: 1 // 0)
        told = threading.Event()
        future.add_done_callback(lambda _: told.set())
        assert told.wait(10)
        assert isinstance(future.exception(), ZeroDivisionError)
        monkeypatch.undo()


def test_a_caller_that_reads_for_others_and_cannot_go_on_tells_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of two that wait, one reads what the workers send."""
    ended: list[BaseException | None] = []

    def wait_for(future: Any) -> None:
        try:
            ended.append(future.exception(timeout=20))
        except Exception as error:  # of the one that reads
            ended.append(error)

    with ts.Pool("process", workers=1) as pool:
        assert pool.submit(abs, -1).result(timeout=10) == 1
        assert pool._calls._submitter is not None
        reports = pool._calls._submitter.team._reports
        waiters = [
            threading.Thread(target=wait_for, args=(pool.submit(hold, 0.3),)) for _ in range(2)
        ]
        monkeypatch.setattr(reports, "handle", lambda event: 1 // 0)
        for waiter in waiters:
            waiter.start()
        with pytest.raises(ZeroDivisionError):
            pool.map(abs, range(10))
        for waiter in waiters:
            waiter.join(30)
        monkeypatch.undo()
    assert [type(each) for each in ended] == [ZeroDivisionError] * 2


def test_a_pool_that_ends_runs_the_callbacks_of_what_it_ends() -> None:
    called: list[object] = []
    pool = ts.Pool("process", workers=1)
    futures = [pool.submit(hold, 60) for _ in range(5)]
    for future in futures:
        future.add_done_callback(called.append)
    pool.terminate()
    assert set(called) == set(futures)


def test_serial_calls_inside_of_each_other_and_interrupts_leave_nothing_open() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    def submits(executor: ts.Executor) -> None:
        executor.submit(interrupted)

    with ts.Executor(backend="serial") as executor:
        assert executor.submit(lambda: executor.submit(abs, -1).result()).result() == 1
        with pytest.raises(KeyboardInterrupt):
            executor.submit(interrupted)
        with pytest.raises(KeyboardInterrupt):
            executor.submit(submits, executor)
        assert isinstance(
            executor.submit(lambda: executor.submit(sys.exit).exception()).result(), ts.RemoteError
        )
        assert executor.submit(abs, -1).result() == 1


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_calls_that_come_while_initializers_fail_are_told(backend: Kind) -> None:
    def fail() -> None:
        raise ValueError("not here")

    for _ in range(20 if backend == "thread" else 2):
        with ts.Executor(2, backend, initializer=fail) as executor:
            futures = [executor.submit(abs, -n) for n in range(6)]
            assert {str(future.exception(timeout=30)) for future in futures} == {"not here"}
