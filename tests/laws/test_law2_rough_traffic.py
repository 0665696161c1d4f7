# SPDX-License-Identifier: BSD-3-Clause
"""Law 2, continued: deaths by every start method and call, at random moments, in heavy traffic."""

import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import teamster as ts

MEGABYTE = 1_000_000


@pytest.fixture
def pool() -> Iterator[ts.Pool]:
    with ts.Pool("process", workers=2) as pool:
        yield pool
        # Trap 42: the same pool works on
        assert pool.map(abs, range(-20, 0)) == list(range(20, 0, -1))


def kill_me() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_seven(number: int) -> int:
    if number == 7:
        kill_me()
    return number


def die_at_seven_of_two(number: int, other: int) -> int:
    return die_at_seven(number) + other


OTHERS = [n for n in range(20) if n != 7]


@pytest.mark.parametrize("method", ["forkserver", "spawn", "fork"])
def test_a_death_by_every_start_method(
    method: Any, run_script: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    """Trap 13; in a program of its own, since fork wants no threads beside it."""
    script = run_script(
        "import os, teamster as ts\n"
        "def run(n):\n"
        "    if n == 7: os._exit(3)\n"
        "    return n\n"
        f"with ts.Pool('process', workers=2, start_method={method!r}) as pool:\n"
        "    results = pool.map(run, range(20), on_error='return')\n"
        "    died = results.pop(7)\n"
        "    print(type(died).__name__, died.index, died.exitcode, died.signal)\n"
        "    print(results == [n for n in range(20) if n != 7], pool.map(abs, range(-3, 0)))\n"
    )
    assert (script.stdout, script.stderr, script.returncode) == (
        "WorkerDied 7 3 None\nTrue [3, 2, 1]\n",
        "",
        0,
    )
    wait_until(lambda: not script.survivors(), seconds=1.0, message="survivors")


@pytest.mark.parametrize("call", ["imap", "imap_unordered"])
def test_a_death_in_a_stream(pool: ts.Pool, call: str) -> None:
    """Trap 13."""
    results = list(getattr(pool, call)(die_at_seven, range(20), on_error="return"))
    died = [result for result in results if isinstance(result, ts.WorkerDied)]
    assert [error.index for error in died] == [7]
    assert sorted(result for result in results if result not in died) == OTHERS
    if call == "imap":
        assert results[7] is died[0]


def test_a_death_among_several_arguments(pool: ts.Pool) -> None:
    """Trap 13."""
    pairs = [(n, 0) for n in range(20)]
    for results in (
        pool.starmap(die_at_seven_of_two, pairs, on_error="return"),
        pool.map(die_at_seven_of_two, range(20), [0] * 20, on_error="return"),
    ):
        assert results[7].index == 7
        assert results[:7] + results[8:] == OTHERS


def test_a_death_among_futures(pool: ts.Pool) -> None:
    """Trap 13."""
    futures = [pool.submit(die_at_seven, n) for n in range(20)]
    assert isinstance(futures[7].exception(timeout=10), ts.WorkerDied)
    assert [future.result(timeout=10) for n, future in enumerate(futures) if n != 7] == OTHERS


@pytest.mark.parametrize("index", [0, 19])
def test_the_first_and_the_last_item(pool: ts.Pool, index: int) -> None:
    """Trap 13."""
    results = pool.map(lambda n: kill_me() if n == index else n, range(20), on_error="return")
    assert isinstance(results[index], ts.WorkerDied)
    assert results[index].index == index
    del results[index]
    assert results == [n for n in range(20) if n != index]


def test_raised_it_names_item_worker_and_signal(pool: ts.Pool) -> None:
    with pytest.raises(ts.WorkerDied) as caught:
        pool.map(die_at_seven, range(20))
    assert (caught.value.index, caught.value.signal, caught.value.exitcode) == (
        7,
        signal.SIGKILL,
        None,
    )
    assert "item 7" in str(caught.value)
    assert f"worker {caught.value.worker}" in str(caught.value)
    assert "SIGKILL" in str(caught.value)


@pytest.mark.parametrize("seed", range(40))
def test_killed_at_a_random_moment(pool: ts.Pool, seed: int) -> None:
    """Trap 14: no lock dies with its holder, no message that was cut short is believed."""
    chance = random.Random(seed)
    pids = set(pool.map(lambda _: time.sleep(0.002) or os.getpid(), range(4), chunksize=1))
    victim = chance.choice(sorted(pids))

    def strike() -> None:
        time.sleep(chance.random() * 0.03)  # not a wait for anything: the moment at which to strike
        os.kill(victim, signal.SIGKILL)

    thread = threading.Thread(target=strike)
    thread.start()
    results = pool.map(
        lambda n: bytes([n]) * MEGABYTE,
        range(24),
        on_error="return",
        chunksize=chance.choice([None, 1, 6]),
    )
    thread.join()
    died = [n for n, result in enumerate(results) if isinstance(result, ts.WorkerDied)]
    assert len(died) <= 1
    assert [results[n].index for n in died] == died
    assert all(results[n] == bytes([n]) * MEGABYTE for n in range(24) if n not in died)


def test_killed_while_a_large_result_is_written(pool: ts.Pool) -> None:
    """Trap 13: of 50 MB that go through no shared memory some have come when the worker dies."""

    def run(number: int) -> bytes:
        if number == 7:
            pid = os.getpid()
            if os.fork() == 0:
                time.sleep(0.03)
                os.kill(pid, signal.SIGKILL)
                os._exit(0)
            return b"x" * (50 * MEGABYTE)
        return b"y"

    results = pool.map(run, range(20), on_error="return", chunksize=1)
    assert isinstance(results[7], ts.WorkerDied) or len(results[7]) == 50 * MEGABYTE
    assert results[:7] + results[8:] == [b"y"] * 19


@pytest.mark.parametrize("chunksize", [None, 1, 3])
def test_large_both_ways(pool: ts.Pool, chunksize: int | None) -> None:
    """Trap 23: a parent and a worker that write a task and a result do not wait for each other."""
    items = [bytes([n]) * (5 * MEGABYTE) for n in range(8)]
    results = pool.map(lambda data: data[::-1], items, chunksize=chunksize)
    assert [(result[0], len(result)) for result in results] == [(n, 5 * MEGABYTE) for n in range(8)]


@pytest.mark.parametrize("nbytes", [0, 1, 65_440, 65_472, 65_480, 65_536, 65_537, 131_072])
def test_results_around_the_size_of_the_log(pool: ts.Pool, nbytes: int) -> None:
    """What just fits and what just does not.

    All arrive, also those of a worker that dies right after.
    """

    def run(number: int) -> bytes:
        if number == 5:
            kill_me()
        return bytes([number]) * (nbytes - number if nbytes > number else nbytes)

    results = pool.map(run, range(10), on_error="return", chunksize=10)
    assert isinstance(results[5], ts.WorkerDied)
    expected = [bytes([n]) * (nbytes - n if nbytes > n else nbytes) for n in range(10) if n != 5]
    assert results[:5] + results[6:] == expected


def test_a_task_may_leave_a_child_that_leads_a_life_of_its_own(
    pool: ts.Pool, tmp_path: Path, within: Callable[..., Any]
) -> None:
    """Trap 27: the child inherits the worker's descriptors.

    So the worker's end must show in another way.
    """

    def run(number: int) -> int:
        if number == 3:
            if (pid := os.fork()) == 0:
                os.setsid()
                (tmp_path / "child").write_text(str(os.getpid()))
                time.sleep(20)
                os._exit(0)
            while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text():
                time.sleep(0.001)
            assert pid
            kill_me()
        return number

    try:
        with within(5):
            results = pool.map(run, range(10), on_error="return")
        assert isinstance(results[3], ts.WorkerDied)
        assert results[:3] + results[4:] == [n for n in range(10) if n != 3]
    finally:
        os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


def test_a_task_that_closes_every_descriptor(pool: ts.Pool) -> None:
    """It cuts its worker off: its item may be lost, and no other."""
    results = pool.map(
        lambda n: os.closerange(0, 256) or n if n == 7 else n,
        range(20),
        on_error="return",
        chunksize=1,
    )
    assert results[7] == 7 or isinstance(results[7], ts.WorkerDied)
    assert results[:7] + results[8:] == OTHERS


@pytest.mark.parametrize("number", [1, 2])
def test_a_task_that_closes_a_standard_descriptor(pool: ts.Pool, number: int) -> None:
    """Trap 35: what is opened next gets that number, and nothing is written into it by mistake."""
    numpy = pytest.importorskip("numpy")

    def run(n: int) -> Any:
        if n < 4:
            os.close(number) if n < 2 else None
        print("said", flush=True)
        return numpy.full(100_000, n)

    results = pool.map(run, range(10), on_error="return", chunksize=1)
    arrays = [result for result in results if not isinstance(result, OSError)]
    assert len(arrays) >= 8
    assert all((array == array[0]).all() for array in arrays)


def test_a_stopped_worker_runs_into_its_timeout() -> None:
    """Trap 36: SIGSTOP, as a debugger or a batch system sends it."""
    with ts.Pool("process", workers=2, timeout=0.3) as pool:
        results = pool.map(
            lambda n: os.kill(os.getpid(), signal.SIGSTOP) if n == 4 else n,
            range(12),
            on_error="return",
        )
        assert isinstance(results[4], ts.TaskTimeout)
        assert results[:4] + results[5:] == [n for n in range(12) if n != 4]


@pytest.mark.parametrize("chunksize", [None, 8])
def test_every_third_item_runs_too_long(chunksize: int | None) -> None:
    """Trap 36: busy loops, inside batches, unordered."""

    def run(number: int) -> int:
        while number % 3 == 1:
            pass
        return number

    with ts.Pool("process", workers=2, timeout=0.12) as pool:
        results = list(pool.imap_unordered(run, range(16), on_error="return", chunksize=chunksize))
        late = sorted(result.index for result in results if isinstance(result, ts.TaskTimeout))
        assert late == [n for n in range(16) if n % 3 == 1]
        assert sorted(result for result in results if isinstance(result, int)) == [
            n for n in range(16) if n % 3 != 1
        ]
        assert pool.report().timeouts == len(late)


def test_all_workers_and_the_server_killed_while_busy(pool: ts.Pool) -> None:
    """Trap 14: nothing is left of the team but the parent, and it recovers."""
    pids = set(pool.map(lambda _: time.sleep(0.002) or os.getpid(), range(4), chunksize=1))
    server = psutil.Process(next(iter(pids))).parent()
    assert server is not None
    timer = threading.Timer(0.05, server.kill)
    timer.start()
    results = pool.map(lambda n: time.sleep(0.02) or n, range(20), on_error="return")
    timer.join()
    died = [n for n, result in enumerate(results) if isinstance(result, ts.WorkerDied)]
    assert len(died) <= 2
    assert all(results[n] == n for n in range(20) if n not in died)


def test_deaths_while_several_threads_use_the_pool(pool: ts.Pool) -> None:
    """Trap 42: each call gets its own death and its own results."""
    outcomes: dict[int, list[Any]] = {}

    def use(shift: int) -> None:
        outcomes[shift] = pool.map(
            lambda n: kill_me() if n == shift else n, range(15), on_error="return"
        )

    threads = [threading.Thread(target=use, args=(shift,)) for shift in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for shift, results in outcomes.items():
        died = [n for n, result in enumerate(results) if isinstance(result, ts.WorkerDied)]
        assert shift in died
        assert died == [shift]
        assert [result for n, result in enumerate(results) if n != shift] == [
            n for n in range(15) if n != shift
        ]
    assert len(outcomes) == 4


def test_an_endless_stream_outlives_its_workers(pool: ts.Pool) -> None:
    """Trap 15: a death every few items is no storm and no end."""
    pulled: list[int] = []
    source = (pulled.append(n) or n for n in itertools.count())
    stream = pool.imap(lambda n: kill_me() if n % 10 == 9 else n, source, on_error="return")
    results = list(itertools.islice(stream, 60))
    stream.close()
    died = [n for n, result in enumerate(results) if isinstance(result, ts.WorkerDied)]
    assert died == [9, 19, 29, 39, 49, 59]
    # Those that ran ahead of the consumer included; items of under a microsecond kill twice, once
    # in a block and once alone.
    assert pool.report().deaths <= 2 * (len(pulled) // 10)
