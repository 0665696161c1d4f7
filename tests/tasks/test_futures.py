# SPDX-License-Identifier: BSD-3-Clause
"""Single calls: what they promise to those who cancel them, wait for them, and are called back."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import decimal
import functools
import gc
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import psutil
import pytest

import teamster as ts
from tests.conftest import RunScript, WaitUntil

Kind = Literal["thread", "process"]
MANY = 20_000


@pytest.fixture(params=["thread", "process"])
def executor(request: pytest.FixtureRequest) -> Iterator[ts.Executor]:
    with ts.Executor(2, request.param) as executor:
        yield executor


def hold(seconds: float = 0.02) -> float:
    time.sleep(seconds)
    return seconds


def test_many_at_once(executor: ts.Executor) -> None:
    futures = [executor.submit(abs, -n) for n in range(MANY)]
    assert [future.result() for future in futures] == list(range(MANY))


def test_many_by_completion_with_callbacks(executor: ts.Executor) -> None:
    called: list[int] = []
    futures = [executor.submit(abs, -n) for n in range(MANY)]
    for future in futures:
        future.add_done_callback(lambda future: called.append(future.result()))
    assert sorted(future.result() for future in cf.as_completed(futures)) == list(range(MANY))
    executor.shutdown()
    assert sorted(called) == list(range(MANY))


def wait_for_file(path: str) -> None:
    deadline = time.monotonic() + 60
    while not os.path.exists(path) and time.monotonic() < deadline:
        time.sleep(0.002)


def learn_that_calls_are_short(executor: ts.Executor) -> None:
    """So that the next ones travel many at a time."""
    for _ in range(3):
        cf.wait([executor.submit(abs, -n) for n in range(2_000)])


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_what_is_done_does_not_wait_for_the_next_call(kind: Kind, tmp_path: Path) -> None:
    """A thread kept the results of short calls until the long one that it had taken was over."""
    with ts.Executor(1, kind) as executor:
        learn_that_calls_are_short(executor)
        first = executor.submit(wait_for_file, str(tmp_path / "first"))
        short = [executor.submit(abs, -n) for n in range(20)]
        long = executor.submit(wait_for_file, str(tmp_path / "long"))
        (tmp_path / "first").touch()
        assert not cf.wait([first, *short], timeout=20).not_done
        assert not long.done()
        (tmp_path / "long").touch()
        assert long.result() is None


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_who_is_idle_takes_what_waits_behind_a_long_call(kind: Kind, tmp_path: Path) -> None:
    with ts.Executor(2, kind) as executor:
        learn_that_calls_are_short(executor)
        first = [executor.submit(wait_for_file, str(tmp_path / "first")) for _ in range(2)]
        long = executor.submit(wait_for_file, str(tmp_path / "long"))
        short = [executor.submit(abs, -n) for n in range(100)]
        (tmp_path / "first").touch()
        assert not cf.wait([*first, *short], timeout=20).not_done
        assert not long.done()
        (tmp_path / "long").touch()
        assert long.result() is None


def test_cancelled_futures_are_announced(executor: ts.Executor) -> None:
    """`wait` and `as_completed` hung on cancelled futures, which never told those who waited."""
    futures = [executor.submit(hold) for _ in range(200)]
    waited = threading.Thread(target=cf.wait, args=(futures,), daemon=True)
    waited.start()
    cf.wait(futures, return_when="FIRST_COMPLETED")
    cancelled = [future for future in futures if future.cancel()]
    assert len(cancelled) > 150
    done, rest = cf.wait(futures, timeout=10)
    assert len(done) == 200
    assert not rest
    assert len(list(cf.as_completed(futures, timeout=10))) == 200
    assert all(future.cancel() for future in cancelled)  # once more changes nothing
    waited.join(10)
    assert not waited.is_alive()


def test_a_cancelled_call_never_runs(executor: ts.Executor, tmp_path: os.PathLike[str]) -> None:
    def note(number: int) -> None:
        hold(0.002)
        open(os.path.join(tmp_path, str(number)), "w").close()

    futures = {number: executor.submit(note, number) for number in range(100)}
    cancelled = {number for number, future in futures.items() if future.cancel()}
    executor.shutdown()
    assert cancelled
    assert {int(name) for name in os.listdir(tmp_path)} == set(futures) - cancelled


def test_a_slow_callback_holds_up_nobody_else(executor: ts.Executor) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(future: cf.Future[int]) -> None:
        entered.set()
        leave.wait(20)

    executor.submit(abs, -1).add_done_callback(slow)
    assert entered.wait(10)
    try:
        assert [executor.submit(abs, -n).result(timeout=10) for n in range(10)] == list(range(10))
    finally:
        leave.set()


def test_a_callback_may_wait_for_another_call(executor: ts.Executor) -> None:
    got: list[int] = []
    told = threading.Event()

    def ask(future: cf.Future[int]) -> None:
        got.append(executor.submit(abs, -7).result(timeout=10))
        told.set()

    executor.submit(abs, -1).add_done_callback(ask)
    assert told.wait(10)
    assert got == [7]


def test_a_lock_of_the_callers_around_submit_and_in_callbacks(executor: ts.Executor) -> None:
    """As joblib does. A callback that ran under a lock of the team's, and took this one, hung."""
    lock, count = threading.Lock(), [0]

    def called(_: object) -> None:
        with lock:
            count[0] += 1

    futures = []
    for number in range(500):
        with lock:
            futures.append(executor.submit(abs, number))
        futures[-1].add_done_callback(called)
    cf.wait(futures, timeout=20)
    executor.shutdown()
    assert count == [500]


def test_a_callback_that_raises_ends_nothing(executor: ts.Executor) -> None:
    for number in range(5):
        executor.submit(abs, number).add_done_callback(lambda future: future.nothing)  # type: ignore[attr-defined]
    assert executor.submit(abs, -3).result(timeout=10) == 3


def test_asyncio_gathers_many(executor: ts.Executor) -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(
            *(loop.run_in_executor(executor, abs, -n) for n in range(3_000))
        )

    assert asyncio.run(main()) == list(range(3_000))


def test_the_last_argument_and_result_are_let_go(
    executor: ts.Executor, wait_until: WaitUntil
) -> None:
    array = np.zeros(200_000)
    argument = weakref.ref(array)
    future = executor.submit(np.sum, array)
    del array
    assert future.result() == 0
    wait_until(lambda: argument() is None)
    future = executor.submit(np.ones, 200_000)
    result = weakref.ref(future.result())
    del future
    wait_until(lambda: gc.collect() >= 0 and result() is None)


def test_the_last_function_of_a_thread_is_let_go(wait_until: WaitUntil) -> None:
    class Large:
        def method(self, number: int = 0) -> int:
            return number

    with ts.Pool("thread", workers=2) as pool:
        large = Large()
        gone = weakref.ref(large)
        assert pool.submit(large.method).result() == 0
        assert pool.map(large.method, range(5)) == list(range(5))
        del large
        wait_until(lambda: gone() is None)


def _partials(number: int) -> Callable[[], int]:
    return functools.partial(len, b"%d" % number + bytes(100_000))


def _closures(number: int) -> Callable[[], int]:
    payload = b"%d" % number + bytes(100_000)
    return lambda: len(payload)


class _Holder:
    def __init__(self, number: int) -> None:
        self.payload = b"%d" % number + bytes(100_000)

    def size(self) -> int:
        return len(self.payload)


def _methods(number: int) -> Callable[[], int]:
    return _Holder(number).size


@pytest.mark.parametrize("make", [_partials, _closures, _methods])
def test_functions_are_let_go(make: Callable[[int], Callable[[], int]]) -> None:
    """600 functions of 100 kB: kept, they would be 60 MB in each worker and here."""
    me = psutil.Process()
    with ts.Executor(1, "process") as executor:
        executor.submit(make(0)).result()
        pid = executor.submit(os.getpid).result()
        before = me.memory_info().rss, psutil.Process(pid).memory_info().rss
        for number in range(600):
            executor.submit(make(number)).result()
        after = me.memory_info().rss, psutil.Process(pid).memory_info().rss
        assert executor.submit(os.getpid).result() == pid
    assert max(now - then for then, now in zip(before, after, strict=True)) < 30e6


def test_a_function_that_changes_is_seen_to_change() -> None:
    """The cache of definitions must not give a worker the function of before."""
    table = {"a": 1}
    step = 1

    def look(key: str) -> int:
        return table[key] * step

    with ts.Pool("process", workers=1) as pool:
        assert pool.submit(look, "a").result() == 1
        table["a"] = 5
        assert pool.submit(look, "a").result() == 5
        step = 3
        assert pool.submit(look, "a").result() == 15


EXIT = """
import sys, time, teamster as ts
def save(n):
    time.sleep(0.05)
    open(f"saved{n}", "w").close()
how, kind = sys.argv[1:]
executor = ts.Executor(2, kind) if how != "pool" else ts.Pool(kind, workers=2)
for n in range(6):
    executor.submit(save, n)
if how == "shutdown":
    executor.shutdown(wait=False)
if how == "dropped":
    del executor
if how == "raised":
    raise SystemExit(0)
"""


@pytest.mark.parametrize("kind", ["thread", "process"])
@pytest.mark.parametrize("how", ["left", "shutdown", "dropped", "raised", "pool"])
def test_open_calls_are_finished_when_the_program_ends(
    kind: str, how: str, run_script: RunScript, wait_until: WaitUntil
) -> None:
    script = run_script(EXIT, how, kind)
    assert (script.returncode, script.stderr) == (0, "")
    assert sorted(path.name for path in script.folder.glob("saved*")) == [
        f"saved{n}" for n in range(6)
    ]
    wait_until(lambda: not script.survivors(), seconds=1.0, message="survivors")


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_calls_see_what_was_set_when_they_were_submitted(kind: str) -> None:
    with ts.Executor(1, kind) as executor, decimal.localcontext() as context:  # type: ignore[arg-type]
        futures = []
        for digits in (10, 20, 30):
            context.prec = digits
            futures.append(
                (executor.submit(lambda: str(decimal.Decimal(1) / 3)), executor.submit(_third))
            )
    assert [[len(each.result()) - 2 for each in pair] for pair in futures] == [
        [10, 10],
        [20, 20],
        [30, 30],
    ]


def _third() -> str:
    return str(decimal.Decimal(1) / 3)


def test_who_waits_runs_no_callbacks_of_others() -> None:
    """A callback may take the lock held by a program that waits (in threads, the workers wait)."""
    lock = threading.Lock()

    def called(_: object) -> None:
        with lock:
            pass

    with ts.Executor(2) as executor:
        for _ in range(20):
            futures = [executor.submit(abs, -n) for n in range(50)]
            for future in futures:
                future.add_done_callback(called)
            with lock:
                assert futures[-1].result(timeout=20) == 49
                assert executor.submit(abs, -1).result(timeout=20) == 1
