# SPDX-License-Identifier: BSD-3-Clause
"""Laws 1 and 2: a death costs the item that ran, nothing else.

Every other item runs exactly once.
"""

import ctypes
import os
import random
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import teamster as ts


@pytest.fixture
def pool() -> Iterator[ts.Pool]:
    with ts.Pool("process", workers=2) as pool:
        yield pool
        # Trap 42: the same pool works on
        assert pool.map(abs, range(-20, 0)) == list(range(20, 0, -1))


def die(how: str) -> None:
    if how == "segfault":
        ctypes.string_at(0)
    elif how == "exit":
        os._exit(3)
    else:
        os.kill(os.getpid(), getattr(signal, how))


@pytest.mark.parametrize("chunksize", [None, 1, 20])
@pytest.mark.parametrize(
    ("how", "number", "code"),
    [("SIGKILL", 9, None), ("SIGTERM", 15, None), ("segfault", 11, None), ("exit", None, 3)],
)
def test_a_death_costs_one_item(
    pool: ts.Pool, how: str, number: int | None, code: int | None, chunksize: int | None
) -> None:
    """Trap 13."""
    results = pool.map(
        lambda n: die(how) if n == 7 else n, range(20), on_error="return", chunksize=chunksize
    )
    died = results[7]
    assert isinstance(died, ts.WorkerDied)
    assert (died.index, died.signal, died.exitcode) == (7, number, code)
    assert died.worker in (0, 1)
    assert results[:7] + results[8:] == [n for n in range(20) if n != 7]
    if how == "segfault":
        assert "string_at" in str(died)  # where it was, by faulthandler


def test_every_other_item_runs_exactly_once(pool: ts.Pool, tmp_path: Path) -> None:
    """Law 1: results that were finished and not yet sent are read from the scoreboard of the dead
    worker.
    """
    note = tmp_path / "ran"

    def run(n: int) -> int:
        with open(note, "a") as file:
            file.write(f"{n}\n")
        if n in (40, 41, 100):
            os.kill(os.getpid(), signal.SIGKILL)
        return n

    results = pool.map(run, range(200), on_error="return", chunksize=50)
    assert [n for n, result in enumerate(results) if isinstance(result, ts.WorkerDied)] == [
        40,
        41,
        100,
    ]
    assert Counter(map(int, note.read_text().split())) == Counter(range(200))


def test_tiny_items_blame_the_right_one_too(pool: ts.Pool) -> None:
    """Items of under a microsecond run in blocks.

    After a death inside a block they run again one by one.
    """
    results = pool.map(
        lambda n: n if n != 70_000 else os.kill(os.getpid(), signal.SIGKILL),
        range(100_000),
        on_error="return",
    )
    assert isinstance(results[70_000], ts.WorkerDied)
    assert results[70_000].index == 70_000
    results[70_000] = 70_000
    assert results == list(range(100_000))


def test_retries_run_it_again(tmp_path: Path) -> None:
    flag = tmp_path / "flag"

    def once(n: int) -> int:
        if n == 5 and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return n

    with ts.Pool("process", workers=2, retries=1) as pool:
        assert pool.map(once, range(20)) == list(range(20))
        assert (pool.report().deaths, pool.report().retries) == (1, 1)


def test_a_poison_item_is_set_aside(tmp_path: Path) -> None:
    """Trap 15: as many workers die of it as it has tries, and no more."""
    with ts.Pool("process", workers=2, retries=2) as pool:
        results = pool.map(lambda n: die("SIGKILL") if n == 3 else n, range(50), on_error="return")
        assert isinstance(results[3], ts.WorkerDied)
        assert "attempt 3" in str(results[3])
        assert [result for result in results if result is not results[3]] == [
            n for n in range(50) if n != 3
        ]
        # Once more, if it was found in a block of items of under a microsecond
        assert pool.report().deaths in (3, 4)


def test_every_item_may_kill(pool: ts.Pool) -> None:
    results = pool.map(lambda n: die("SIGKILL"), range(6), on_error="return")
    assert [result.index for result in results] == list(range(6))


class KillsOnLoad:
    def __reduce__(self) -> Any:
        return (os._exit, (4,))


def test_an_argument_whose_unpickling_kills(pool: ts.Pool) -> None:
    """Trap 13: during the reading of a task."""
    items = [KillsOnLoad() if n == 7 else n for n in range(20)]
    results = pool.map(lambda n: n, items, on_error="return", chunksize=10)
    assert isinstance(results[7], ts.WorkerDied)
    assert results[7].index == 7
    assert results[:7] + results[8:] == [n for n in range(20) if n != 7]


def test_large_results_of_a_dying_worker(pool: ts.Pool) -> None:
    """Traps 13 and 14: killed at random moments with 1 MB results under way, it never hangs and
    never loses another's.
    """
    chance = random.Random(7)
    for _ in range(8):
        delay = chance.random() * 0.01

        def run(n: int, delay: float = delay) -> bytes:
            if n == 3:
                pid = os.getpid()
                if os.fork() == 0:
                    time.sleep(delay)
                    os.kill(pid, signal.SIGKILL)
                    os._exit(0)
                time.sleep(0.005)
            return bytes([n]) * 1_000_000

        results = pool.map(run, range(10), on_error="return")
        for n, result in enumerate(results):
            assert isinstance(result, ts.WorkerDied) or result == bytes([n]) * 1_000_000
        assert sum(isinstance(result, ts.WorkerDied) for result in results) <= 1


def test_an_idle_worker_is_killed(pool: ts.Pool) -> None:
    pids = set(pool.map(lambda _: time.sleep(0.01) or os.getpid(), range(20)))
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert pool.map(abs, range(100)) == list(range(100))


def test_the_fork_server_is_killed(pool: ts.Pool, wait_until: Callable[..., None]) -> None:
    """Its workers die with it; a new server brings new ones."""
    pids = pool.map(lambda _: os.getpid(), range(4))
    server = psutil.Process(pids[0]).parent()
    assert server is not None
    server.kill()
    wait_until(
        lambda: (
            not any(
                psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids
            )
        )
    )
    results = pool.map(lambda n: n, range(50), on_error="return")
    assert results == list(range(50))


def test_no_memory_under_a_limit(pool: ts.Pool) -> None:
    def grow(n: int) -> int:
        if n == 2:
            resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
            return len(bytearray(2**31))
        return n

    results = pool.map(grow, range(6), on_error="return")
    assert isinstance(results[2], MemoryError)
    assert [results[0], results[5]] == [0, 5]


class TestTimeouts:
    def test_a_timeout_costs_one_item(self) -> None:
        """Trap 36: per item, even inside a batch."""
        with ts.Pool("process", workers=2, timeout=0.2) as pool:
            for chunksize in (None, 10):
                results = pool.map(
                    lambda n: time.sleep(30) if n == 4 else n,
                    range(20),
                    on_error="return",
                    chunksize=chunksize,
                )
                assert isinstance(results[4], ts.TaskTimeout)
                assert (results[4].index, results[4].seconds) == (4, 0.2)
                assert results[:4] + results[5:] == [n for n in range(20) if n != 4]
            assert pool.map(abs, range(5)) == list(range(5))

    def test_waiting_in_a_queue_does_not_count(self) -> None:
        with ts.Pool("process", workers=1, timeout=0.5) as pool:
            assert pool.map(lambda n: time.sleep(0.06) or n, range(15), chunksize=15) == list(
                range(15)
            )

    def test_loading_the_function_does_not_count(self) -> None:
        """The first item of a fresh worker may have to import torch: not its fault."""

        def load() -> int:
            time.sleep(0.6)
            return 1

        class SlowToLoad:
            def __reduce__(self) -> Any:
                return load, ()

        carried = SlowToLoad()
        with ts.Pool("process", workers=1, timeout=0.3) as pool:
            assert pool.map(lambda n: (carried, n)[1], range(3), chunksize=1) == [0, 1, 2]
            assert pool.submit(lambda: (carried, 5)[1]).result() == 5

    def test_native_code_that_holds_everything(self) -> None:
        with ts.Pool("process", workers=1, timeout=0.2) as pool:
            results = pool.map(
                lambda n: ctypes.PyDLL(None).sleep(30) if n == 1 else n, range(3), on_error="return"
            )
            assert isinstance(results[1], ts.TaskTimeout)
            assert [results[0], results[2]] == [0, 2]

    def test_a_submitted_call(self) -> None:
        with ts.Pool("process", workers=1, timeout=0.2) as pool:
            assert isinstance(pool.submit(time.sleep, 30).exception(), ts.TaskTimeout)
            assert pool.submit(abs, -1).result() == 1

    @pytest.mark.parametrize("backend", ["thread", "serial"])
    def test_refused_where_nothing_can_be_killed(self, backend: str) -> None:
        with pytest.raises(ts.UsageError, match="timeout needs backend='process'"):
            ts.Pool(backend, timeout=1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("most", [1, 2, 3])
def test_workers_are_replaced_after_so_many_items(workers: int, most: int) -> None:
    """Trap 17."""
    with ts.Pool("process", workers=workers, max_tasks_per_worker=most) as pool:
        pids = Counter(pool.map(lambda _: os.getpid(), range(12)))
    assert sum(pids.values()) == 12
    assert max(pids.values()) <= most


def test_unfinished_business_of_dead_starts() -> None:
    """An initializer that kills every worker ends in one error, and not in a storm."""
    with ts.Pool("process", workers=2, initializer=os._exit, initargs=(5,)) as pool:
        with pytest.raises(ts.WorkerStartError, match="died before they were ready"):
            pool.map(abs, range(10))


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_an_item_may_wait_for_another(pool: ts.Pool, tmp_path: Path) -> None:
    """Handed in one batch, they would wait for ever if unstarted items could not go to another
    worker.
    """

    def run(n: int) -> int:
        if n == 0:
            deadline = time.monotonic() + 20
            while not (tmp_path / "go").exists() and time.monotonic() < deadline:
                time.sleep(0.001)
            assert (tmp_path / "go").exists()
        if n == 5:
            (tmp_path / "go").touch()
        return n

    assert pool.map(run, range(6), chunksize=6) == list(range(6))
