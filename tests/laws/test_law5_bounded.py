# SPDX-License-Identifier: BSD-3-Clause
"""Law 5: read-ahead and memory in flight are bounded in items and in bytes.

The input is advanced in the caller's thread only.
"""

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import teamster as ts

BACKENDS = ["serial", "thread", "process"]
MEGABYTE = 1 << 20


class Counting:
    """An endless input that knows how far it was read, and by whom."""

    def __init__(self) -> None:
        self.pulled = 0
        self.threads: set[int] = set()

    def __iter__(self) -> Iterator[int]:
        for number in itertools.count():
            self.pulled += 1
            self.threads.add(threading.get_ident())
            yield number


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("call", ["imap", "imap_unordered"])
def test_nothing_is_read_for_nobody(backend: Any, call: str) -> None:
    """Between two `next`s the input stands still, whatever the workers do."""
    source = Counting()
    with ts.Pool(backend, workers=2) as pool:
        results = getattr(pool, call)(abs, source)
        for _ in range(500):
            next(results)
        before = source.pulled
        time.sleep(0.1)  # time for whoever would read on
        assert source.pulled == before
        results.close()
    assert source.threads == {threading.get_ident()}


@pytest.mark.parametrize("chunksize", [1, 20])
def test_an_explicit_chunk_bounds_the_read_ahead(chunksize: int) -> None:
    """A few batches for each worker, and no more.

    In input order others may run further ahead of a slow item, see below.
    """
    source = Counting()
    with ts.Pool("process", workers=2) as pool:
        results = pool.imap_unordered(abs, source, chunksize=chunksize)
        for taken in range(1, 2_000):
            next(results)
            assert source.pulled - taken <= 20 * chunksize
        results.close()


def test_others_do_not_run_ahead_of_a_slow_item_for_ever() -> None:
    """In input order, results of 1 MB pile up behind the first item.

    Until there are enough of them.
    """
    source = Counting()

    def run(number: int) -> bytes:
        time.sleep(1.5 if number == 0 else 0)
        return bytes(8 * MEGABYTE)

    with ts.Pool("process", workers=2) as pool:
        results = pool.imap(run, source)
        next(results)
        assert source.pulled * 8 * MEGABYTE < 2 * (256 * MEGABYTE)
        results.close()


@pytest.mark.parametrize("way", ["in", "out"])
def test_memory_in_flight(way: str, run_script: Callable[..., Any]) -> None:
    """Trap 22: 600 items of 4 MB go by, with a consumer that takes its time.

    The program never holds many of them.
    """
    script = run_script(
        "import sys, time, psutil, numpy as np, teamster as ts\n"
        "make = lambda n: np.full(500_000, n, dtype='int64')\n"
        "inputs, run = ((make(n) for n in range(600)), len) if sys.argv[1] == 'in' else "
        "(range(600), make)\n"
        "peak, began = 0, psutil.Process().memory_info().rss\n"
        "with ts.Pool('process', workers=2) as pool:\n"
        "    for result in pool.imap(run, inputs):\n"
        "        time.sleep(0.0005)\n"
        "        held = psutil.Process().memory_info().rss - began\n"
        "        peak = max(peak, held)\n"
        "print(peak < 300_000_000, peak, file=sys.stderr if peak >= 300_000_000 else sys.stdout)\n",
        way,
    )
    assert (script.stdout[:4], script.stderr, script.returncode) == ("True", "", 0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_input_of_map_too_is_the_callers(backend: Any) -> None:
    """Trap 18: an input that belongs to a thread, as a database cursor does."""
    threads: set[int] = set()

    def items() -> Iterator[int]:
        for number in range(300):
            threads.add(threading.get_ident())
            yield number

    with ts.Pool(backend, workers=2) as pool:
        pool.submit(abs, -1).result()
        assert pool.map(abs, items()) == list(range(300))
    assert threads == {threading.get_ident()}


def test_open_iterators_share_threads_and_descriptors(wait_until: Callable[..., None]) -> None:
    """Under "auto", each of 200 that wait for their consumer has neither a lookout nor a file of
    its own.
    """
    with ts.Pool(allow=["serial"]) as pool:
        before = len(os.listdir("/proc/self/fd"))
        streams = [pool.imap(abs, range(1_000)) for _ in range(200)]
        for _ in range(3):
            assert [next(stream) for stream in streams].count(0) in (0, 200)
        assert len(os.listdir("/proc/self/fd")) < before + 20
        wait_until(lambda: all(thread.name != "teamster-gil" for thread in threading.enumerate()))
        assert [sum(stream) for stream in streams] == [sum(range(3, 1_000))] * 200
