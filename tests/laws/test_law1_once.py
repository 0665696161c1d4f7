# SPDX-License-Identifier: BSD-3-Clause
"""Law 1: every item runs exactly once, unless the worker running it died.

Then at most ``1 + retries`` times.
"""

import os
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import teamster as ts

BACKENDS = ["serial", "thread", "process"]
ran_here: deque[int] = deque()


def noting(path: Path) -> Callable[[int], int]:
    """A function that notes each of its runs; an append of a few bytes is never torn.

    A closure travels by value: a worker that had to import this module, and pytest with it, would
    take 0.1 s to start.
    """
    name = str(path)

    def note(number: int) -> int:
        descriptor = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{number}\n".encode())
        os.close(descriptor)
        return number

    return note


def runs(path: Path) -> Counter[int]:
    return Counter(map(int, path.read_text().split()))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("chunksize", [None, 1, 7, 500])
def test_every_item_runs_once(backend: Any, chunksize: int | None, tmp_path: Path) -> None:
    file = tmp_path / "ran"
    with ts.Pool(backend, workers=2) as pool:
        assert pool.map(noting(file), range(500), chunksize=chunksize) == list(range(500))
    assert runs(file) == Counter(range(500))


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_items_that_change_hands_run_once(backend: Any, tmp_path: Path) -> None:
    """Every twentieth item is slow, so that its batch is taken back from its worker again and
    again.
    """
    file = tmp_path / "ran"

    note = noting(file)

    def run(number: int) -> int:
        note(number)
        time.sleep(0.012 if number % 20 == 0 else 0.0)
        return number

    with ts.Pool(backend, workers=3) as pool:
        assert sorted(pool.imap_unordered(run, range(300), chunksize=40)) == list(range(300))
        assert pool.map(run, range(300, 500), chunksize=100) == list(range(300, 500))
    assert runs(file) == Counter(range(500))


@pytest.mark.parametrize("most", [1, 2, 3])
@pytest.mark.parametrize("workers", [1, 2])
def test_items_of_retiring_workers_run_once(workers: int, most: int, tmp_path: Path) -> None:
    """Trap 17: workers are replaced while there is a backlog."""
    file = tmp_path / "ran"
    with ts.Pool("process", workers=workers, max_tasks_per_worker=most) as pool:
        assert pool.map(noting(file), range(20), chunksize=5) == list(range(20))
        assert list(pool.imap_unordered(noting(file), [20, 21])) in ([20, 21], [21, 20])
        assert pool.report().deaths == 0
    assert runs(file) == Counter(range(22))


def test_retiring_workers_and_a_pool_that_is_dropped() -> None:
    """Trap 17: the iterator works on without a name for its pool."""
    results = ts.Pool("process", workers=2, max_tasks_per_worker=2).imap(abs, range(-30, 0))
    assert list(results) == list(range(30, 0, -1))


@pytest.mark.parametrize("retries", [0, 1, 2])
@pytest.mark.parametrize("chunksize", [None, 1, 10])
def test_an_item_that_kills_runs_one_time_more_than_retries(
    retries: int, chunksize: int | None, tmp_path: Path
) -> None:
    """Traps 13 and 15."""
    file = tmp_path / "ran"

    note = noting(file)

    def run(number: int) -> int:
        note(number)
        if number in (7, 13):
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    with ts.Pool("process", workers=2, retries=retries) as pool:
        results = pool.map(run, range(20), on_error="return", chunksize=chunksize)
        report = pool.report()
    assert [
        number for number, result in enumerate(results) if isinstance(result, ts.WorkerDied)
    ] == [7, 13]
    assert runs(file) == Counter(range(20)) + Counter({7: retries, 13: retries})
    assert (report.deaths, report.retries) == (2 * (1 + retries), 2 * retries)


def test_an_item_whose_neighbour_ran_too_long_runs_once(tmp_path: Path) -> None:
    """Trap 36: a timeout kills a worker that holds finished results and unstarted items."""
    file = tmp_path / "ran"

    note = noting(file)

    def run(number: int) -> int:
        note(number)
        time.sleep(30 if number in (4, 5) else 0)
        return number

    with ts.Pool("process", workers=2, timeout=0.15, retries=3) as pool:
        results = pool.map(run, range(20), on_error="return", chunksize=10)
    assert [
        number for number, result in enumerate(results) if isinstance(result, ts.TaskTimeout)
    ] == [4, 5]
    assert runs(file) == Counter(range(20))


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_item_that_raises_is_not_tried_again(backend: Any, tmp_path: Path) -> None:
    """Retries are for deaths; an exception is an answer."""
    file = tmp_path / "ran"

    note = noting(file)

    def run(number: int) -> float:
        return 1 / (note(number) - 3)

    with ts.Pool(backend, workers=2, retries=2) as pool:
        results = pool.map(run, range(10), on_error="return")
    assert isinstance(results[3], ZeroDivisionError)
    assert runs(file) == Counter(range(10))


def count_here(number: int) -> int:
    """A side effect that costs nothing: such items run in blocks."""
    ran_here.append(number)
    return number


def drain_here(_: int) -> list[int]:
    time.sleep(0.05)
    taken = list(ran_here)
    ran_here.clear()
    return taken


@pytest.mark.parametrize("workers", [1, 2])
def test_items_in_blocks_run_once(workers: int) -> None:
    with ts.Pool("process", workers=workers) as pool:
        assert pool.map(count_here, range(60_000)) == list(range(60_000))
        counted: Counter[int] = Counter()
        for taken in pool.map(drain_here, range(2 * workers), chunksize=1):
            counted.update(taken)
    assert counted == Counter(range(60_000))


class SetsStateBadly:
    def __init__(self) -> None:
        self.something = 1

    def __setstate__(self, state: dict[str, Any]) -> None:
        raise LookupError("no state for me")


def count_and_answer_badly(number: int) -> Any:
    ran_here.append(number)
    return SetsStateBadly() if number == 30_000 else number


def test_a_result_that_does_not_load_runs_nothing_twice() -> None:
    """Trap 11: the neighbours of such a result in its block were run, too."""
    with ts.Pool("process", workers=1) as pool:
        results = pool.map(count_and_answer_badly, range(60_000), on_error="return")
        (taken,) = pool.map(drain_here, [0])
    assert isinstance(results[30_000], ts.TransferError)
    assert results[:30_000] + results[30_001:] == [n for n in range(60_000) if n != 30_000]
    assert [number for number, count in Counter(taken).items() if count > 1] == []


def test_a_copy_of_the_program_does_not_touch_the_pool(run_script: Callable[..., Any]) -> None:
    """Trap 34: a forked child that ends normally must leave the workers, which are its parent's,
    alone.
    """
    script = run_script(
        "import multiprocessing, os, sys, teamster as ts\n"
        "pool = ts.Pool('process', workers=2)\n"
        "before = sorted(set(pool.map(lambda _: os.getpid(), range(50), chunksize=1)))\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    sys.exit(0)\n"
        "print(os.waitpid(pid, 0)[1])\n"
        "child = multiprocessing.get_context('fork').Process(target=pool.close); child.start(); "
        "child.join()\n"
        "print(pool.map(abs, range(-5, 0)), pool.report().deaths)\n"
        "print(set(pool.map(lambda _: os.getpid(), range(50), chunksize=1)) <= set(before))\n"
    )
    assert (script.stdout, script.stderr, script.returncode) == (
        "0\n[5, 4, 3, 2, 1] 0\nTrue\n",
        "",
        0,
    )


def test_a_copy_of_a_busy_program_takes_no_results_away(run_script: Callable[..., Any]) -> None:
    """Trap 34: the child shares the descriptors on which its parent's results arrive."""
    script = run_script(
        "import os, sys, time, warnings, teamster as ts\n"
        "warnings.simplefilter('ignore', DeprecationWarning)  # of a fork while other threads run\n"
        "pool = ts.Pool('process', workers=2)\n"
        "pool.map(abs, range(10))\n"
        "for attempt in range(4):\n"
        "    futures = [pool.submit(lambda n: time.sleep(0.01) or n, n) for n in range(20)]\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        sys.exit(0)\n"
        "    print([future.result(timeout=10) for future in futures] == list(range(20)), "
        "os.waitpid(pid, 0)[1])\n"
        "print(pool.report().deaths)\n",
        timeout=20,
    )
    assert (script.stdout, script.stderr, script.returncode) == ("True 0\n" * 4 + "0\n", "", 0)


@pytest.mark.skipif(sys.platform != "linux", reason="needs signals between processes")
def test_after_an_interrupt_no_item_that_was_over_runs_again(
    tmp_path: Path, start_script: Callable[..., Any], wait_until: Callable[..., None]
) -> None:
    """Traps 25 and 26: caught, the interrupt costs the call.

    The pool goes on and repeats nothing.
    """
    script = start_script(
        "import os, sys, time, teamster as ts\n"
        "def run(n):\n"
        "    with open(sys.argv[1], 'a') as file: file.write(f'{n}\\n')\n"
        "    time.sleep(0.03)\n"
        "    return n\n"
        "with ts.Pool('process', workers=2) as pool:\n"
        "    try:\n"
        "        pool.map(run, range(1000))\n"
        "    except KeyboardInterrupt:\n"
        "        print('interrupted', flush=True)\n"
        "    print(pool.map(run, range(2000, 2010)) == list(range(2000, 2010)))\n",
        str(tmp_path / "ran"),
    )
    wait_until(lambda: (tmp_path / "ran").exists() and len(runs(tmp_path / "ran")) > 6, seconds=20)
    script.send_signal(signal.SIGINT)
    script.wait(timeout=10)
    assert (script.stdout, script.stderr, script.returncode) == ("interrupted\nTrue\n", "", 0)
    counted = runs(tmp_path / "ran")
    assert max(counted.values()) == 1
    assert {n for n in counted if n >= 2000} == set(range(2000, 2010))
