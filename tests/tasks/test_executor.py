# SPDX-License-Identifier: BSD-3-Clause
"""What other libraries ask of an executor."""

from __future__ import annotations

import concurrent.futures as cf
import inspect
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import teamster as ts
from tests.conftest import RunScript, WaitUntil


@pytest.fixture(params=["thread", "process"])
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_every_member_of_the_interface_is_there(kind: str) -> None:
    """A drop-in is its base class, too."""
    with ts.Executor(1, kind) as executor:  # type: ignore[arg-type]
        assert isinstance(executor, cf.Executor)
        for name in dir(cf.Executor):
            if name.startswith("_"):
                continue
            theirs = inspect.signature(getattr(cf.ProcessPoolExecutor, name)).parameters
            ours = inspect.signature(getattr(ts.Executor, name)).parameters
            assert set(theirs) <= set(ours), name
        assert not {name for name in vars(executor) if name in dir(cf.Executor)}


def test_map_runs_whether_or_not_it_is_asked(kind: str, tmp_path: os.PathLike[str]) -> None:
    with ts.Executor(2, kind) as executor:  # type: ignore[arg-type]
        executor.map(lambda n: open(os.path.join(tmp_path, str(n)), "w").close(), range(5))
    assert sorted(os.listdir(tmp_path)) == list("01234")


def test_map_takes_its_inputs_at_once(kind: str) -> None:
    with ts.Executor(2, kind) as executor:  # type: ignore[arg-type]
        items = [1, 2, 3]
        results = executor.map(abs, items)
        items.append(4)
        assert list(results) == [1, 2, 3]


def test_results_can_be_read_after_the_end(kind: str) -> None:
    with ts.Executor(2, kind) as executor:  # type: ignore[arg-type]
        results = executor.map(abs, range(-5, 0))
    assert list(results) == [5, 4, 3, 2, 1]


def test_map_keeps_its_time(kind: str) -> None:
    with ts.Executor(1, kind) as executor:  # type: ignore[arg-type]
        seen = []
        # The worker is there: another one may take its time to start
        executor.submit(time.sleep, 0).result()
        with pytest.raises(TimeoutError):
            for value in executor.map(time.sleep, [0, 0, 3], timeout=1.5):
                seen.append(value)
        assert seen == [None, None]


def test_map_with_a_buffer_reads_no_further(kind: str) -> None:
    pulled: list[int] = []

    def items() -> Iterator[int]:
        for number in range(10_000):
            pulled.append(number)
            yield number

    with ts.Executor(2, kind) as executor:  # type: ignore[arg-type]
        results = executor.map(abs, items(), buffersize=3)
        assert pulled == [0, 1, 2]
        assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
        assert len(pulled) == 8
        results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("chunksize", [None, 1, 7])
def test_chunks(kind: str, chunksize: int | None) -> None:
    with ts.Executor(2, kind) as executor:  # type: ignore[arg-type]
        assert list(executor.map(pow, range(100), [2] * 100, chunksize=chunksize)) == [
            n * n for n in range(100)
        ]


def test_map_asks_the_submit_that_a_program_has_put_in_its_place(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Bound(ts.Executor):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> cf.Future[Any]:
            return super().submit(pow, *args, 10, **kwargs)

    with Bound(1, kind) as executor:  # type: ignore[arg-type]
        assert list(executor.map(abs, [2, 3], [5, 3])) == [2, 7]
    with ts.Executor(1, kind) as executor:  # type: ignore[arg-type]
        plain = executor.submit
        monkeypatch.setattr(executor, "submit", lambda _, *args: plain(max, *args))
        assert list(executor.map(min, [2, 3], [5, 2])) == [5, 3]


def test_what_makes_no_sense_is_refused(kind: str) -> None:
    with ts.Executor(1, kind) as executor:  # type: ignore[arg-type]
        for options in ({"chunksize": 0}, {"buffersize": 0}):
            with pytest.raises(ts.UsageError, match="at least 1"):
                executor.map(abs, [1], **options)
        with pytest.raises(TypeError, match="bogus"):
            executor.map(abs, [1], bogus=3)  # type: ignore[call-arg]
        with pytest.raises(ValueError, match="must be a function"):
            executor.submit(3)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(abs, 1)
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        ts.Executor(0)
    with pytest.raises(TypeError, match="prefix"):
        ts.Executor(1, thread_name_prefix="prefix")


def test_an_early_end_cancels_the_rest(kind: str) -> None:
    with ts.Executor(1, kind) as executor:  # type: ignore[arg-type]
        results = executor.map(time.sleep, [0.01] * 3 + [20] * 20)
        next(results)
        results.close()  # type: ignore[attr-defined]
        executor._pool.terminate()  # type: ignore[attr-defined]  # what runs already would take its 20 s


def test_shutdown_without_waiting_ends_the_workers_later(kind: str, wait_until: WaitUntil) -> None:
    executor = ts.Executor(2, kind)  # type: ignore[arg-type]
    futures = [executor.submit(time.sleep, 0.05) for _ in range(10)]
    executor.shutdown(wait=False)
    assert not futures[-1].done()
    assert [future.result(timeout=20) for future in futures] == [None] * 10
    wait_until(lambda: executor._owned._teams.closed)


def test_shutdown_in_a_callback(kind: str, wait_until: WaitUntil) -> None:
    executor = ts.Executor(2, kind)  # type: ignore[arg-type]
    executor.submit(abs, -1).add_done_callback(lambda _: executor.shutdown(wait=True))
    wait_until(lambda: executor._owned._teams.closed, 20)


def test_the_number_of_workers_has_its_usual_name(kind: str) -> None:
    """Dask reads it."""
    with ts.Executor(3, kind) as executor, ts.Pool(kind, workers=2) as pool:  # type: ignore[arg-type]
        assert executor._max_workers == 3
        assert pool.executor()._max_workers == 2


def test_a_context_names_the_start_method() -> None:
    with ts.Executor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        assert executor.submit(abs, -1).result() == 1


def test_a_pool_that_cannot_start_is_a_broken_executor() -> None:
    with ts.Executor(1, initializer=os._exit, initargs=(3,)) as executor:
        with pytest.raises(cf.BrokenExecutor) as caught:
            executor.submit(abs, 1).result()
    assert isinstance(caught.value, ts.WorkerStartError)


def test_the_pool_outlives_its_executor(kind: str) -> None:
    with ts.Pool(kind, workers=1) as pool:  # type: ignore[arg-type]
        with pool.executor() as executor:
            executor.submit(abs, 1)
        assert pool.map(abs, [-1]) == [1]


INTERRUPTED = """
import os, signal, sys, threading, time
import teamster as ts

def interrupt():
    time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGINT)

def block(where):
    with ts.Executor(2, sys.argv[1]) as executor:
        futures = [executor.submit(time.sleep, 0.2) for _ in range(1_000)]
        threading.Thread(target=interrupt).start()
        if where == "inside":
            futures[-1].result()

for where in ("inside", "at the end"):
    try:
        block(where)
    except KeyboardInterrupt:
        print(where, ts.map(abs, [-1], backend=sys.argv[1]), flush=True)
"""


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_an_interrupted_block_waits_for_nothing(run_script: RunScript, backend: str) -> None:
    assert run_script(INTERRUPTED, backend, timeout=60).stdout == "inside [1]\nat the end [1]\n"
