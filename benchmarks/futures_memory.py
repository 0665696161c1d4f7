# SPDX-License-Identifier: BSD-3-Clause
"""How much memory do many open futures take, beside the standard executors?

Question: what the program grows by when it submits 100,000 calls at once, and keeps their futures.
Method: a fresh program for each contender and number; the growth of its peak resident memory, over
what it had with a warm executor. Workers are not counted: they hold no more than their next calls.
Command: ``python -m benchmarks.futures_memory``.
Result: a table on stdout; asked: at most what the standard executor takes.
"""

from __future__ import annotations

import concurrent.futures as cf
import multiprocessing as mp
import resource
import subprocess
import sys
from collections.abc import Callable

import teamster as ts
from benchmarks import work

COUNTS = 10_000, 100_000
MOST = 1.0
MAKERS: dict[str, Callable[[], cf.Executor]] = {
    "teamster, process": lambda: ts.Executor(2, "process"),
    "ProcessPoolExecutor": lambda: cf.ProcessPoolExecutor(
        2, mp_context=mp.get_context("forkserver")
    ),
    "teamster, thread": lambda: ts.Executor(2, "thread"),
    "ThreadPoolExecutor": lambda: cf.ThreadPoolExecutor(2),
}
PAIRS = ("teamster, process", "ProcessPoolExecutor"), ("teamster, thread", "ThreadPoolExecutor")


def peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def growth_kib(name: str, count: int) -> int:
    """In this program: what `count` open futures and their results add."""
    with MAKERS[name]() as executor:
        for future in [executor.submit(work.same, number) for number in range(200)]:
            future.result()
        before = peak_kib()
        futures = [executor.submit(work.same, number) for number in range(count)]
        cf.wait(futures)
        return peak_kib() - before


def measure(name: str, count: int) -> int:
    """The same in a program of its own."""
    command = [sys.executable, "-m", "benchmarks.futures_memory", name, str(count)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    if len(sys.argv) == 3:
        print(growth_kib(sys.argv[1], int(sys.argv[2])))
        return
    for count in COUNTS:
        print(f"{count:,} open futures")
        for ours, theirs in PAIRS:
            found = {name: measure(name, count) for name in (ours, theirs)}
            ratio = found[ours] / max(1, found[theirs])
            for name, kib in found.items():
                print(f"  {name:22} {kib / 1024:8.1f} MiB  {kib * 1024 / count:8,.0f} B a future")
            print(f"  asked: at most {MOST}; measured {ratio:.2f}: {verdict(ratio)}", flush=True)


def verdict(ratio: float) -> str:
    return "ok" if ratio <= MOST else "SHORT"


if __name__ == "__main__":
    main()
