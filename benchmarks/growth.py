# SPDX-License-Identifier: BSD-3-Clause
"""Does anything cost more than its number?

Futures, errors, deaths, callers, calls, workers, spans and generators, at three sizes.
Question: with ten times as many of something, does it take more than ten times as long?
Method: each row runs at three sizes, once to warm up and then in turn; the exponent is the slope
between the logarithms of size and of the median time. What a start costs makes it smaller than 1; a
loop over all of them in each of them makes it 2.
Command: ``make bench-growth`` (all), ``make bench-growth ARGS="--only futures,errors"``.
Result: a table on stdout and ``benchmarks/out/growth.json``.
To reach: an exponent of at most 1.1.
"""

from __future__ import annotations

import argparse
import concurrent.futures as cf
import json
import math
import os
import signal
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import teamster as ts
from benchmarks import map_futures, work

OUT = Path(__file__).parent / "out"
MOST = 1.1
ROUNDS = 3


def futures(kind: str, use: map_futures.Use) -> Callable[[int], float]:
    def run(count: int) -> float:
        with ts.Executor(2, kind) as executor:  # type: ignore[arg-type]
            map_futures.results(executor, 100)
            began = time.perf_counter()
            use(executor, count)
            return time.perf_counter() - began

    return run


def errors(kind: str) -> Callable[[int], float]:
    def run(count: int) -> float:
        with ts.Pool(kind, workers=2) as pool:  # type: ignore[arg-type]
            pool.map(work.same, range(100))
            began = time.perf_counter()
            pool.map(work.fail, range(count), on_error="return")
            return time.perf_counter() - began

    return run


def die(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def deaths(count: int) -> float:
    with ts.Pool("process", workers=2) as pool:
        pool.map(work.same, range(100))
        began = time.perf_counter()
        pool.map(die, range(count), on_error="return")
        return time.perf_counter() - began


def timeouts(count: int) -> float:
    with ts.Pool("process", workers=2, timeout=0.01) as pool:
        pool.map(work.same, range(100))
        began = time.perf_counter()
        pool.map(time.sleep, [60] * count, on_error="return")
        return time.perf_counter() - began


def seconds_of(threads: list[threading.Thread]) -> float:
    """From the start of the first to the end of the last."""
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def callers(kind: str) -> Callable[[int], float]:
    """Threads of the program that share one pool, each with the same work."""

    def run(count: int) -> float:
        with ts.Pool(kind, workers=2) as pool:  # type: ignore[arg-type]
            pool.map(work.same, range(100))
            threads = [
                threading.Thread(target=pool.map, args=(work.checksum, range(20)))
                for _ in range(count)
            ]
            return seconds_of(threads)

    return run


def waiting_callers(count: int) -> float:
    """Threads of the program, each with one call after the other."""
    with ts.Executor(2, "process") as executor:
        map_futures.results(executor, 100)
        threads = [threading.Thread(target=_round_trips, args=(executor, 50)) for _ in range(count)]
        return seconds_of(threads)


def _round_trips(executor: cf.Executor, count: int) -> None:
    for number in range(count):
        executor.submit(work.same, number).result()


def calls(kind: str) -> Callable[[int], float]:
    def run(count: int) -> float:
        with ts.Pool(kind, workers=2) as pool:  # type: ignore[arg-type]
            pool.map(work.same, range(100))
            began = time.perf_counter()
            for _ in range(count):
                pool.map(work.same, range(10))
            return time.perf_counter() - began

    return run


def workers(count: int) -> float:
    """A pool of so many, its start included, with 20 items for each."""
    began = time.perf_counter()
    with ts.Pool("process", workers=count) as pool:
        pool.map(work.checksum, range(20 * count), chunksize=1)
    return time.perf_counter() - began


def threads(count: int) -> float:
    began = time.perf_counter()
    with ts.Pool("thread", workers=count) as pool:
        pool.map(work.nap, [0.001] * (20 * count), chunksize=1)
    return time.perf_counter() - began


def functions(count: int) -> float:
    with ts.Executor(2, "process") as executor:
        map_futures.results(executor, 100)
        began = time.perf_counter()
        for future in [executor.submit(lambda number=number: number) for number in range(count)]:
            future.result()
        return time.perf_counter() - began


def spans(count: int) -> float:
    with ts.record() as recording:
        began = time.perf_counter()
        for _ in range(count):
            with ts.span("step"):
                pass
    recording.timeline.utilization(10)
    return time.perf_counter() - began


def generators(count: int) -> float:
    """So many open at once, read in turn."""
    with ts.Pool("process", workers=2) as pool:
        pool.map(work.same, range(100))
        began = time.perf_counter()
        streams = [pool.imap(work.same, range(50)) for _ in range(count)]
        for _ in range(50):
            for stream in streams:
                next(stream)
        for stream in streams:
            with closing(stream):
                pass
        return time.perf_counter() - began


Row = tuple[str, Callable[[int], float], tuple[int, int, int]]

ROWS: list[Row] = [
    *(
        (f"futures, {name}, process", futures("process", use), (3_000, 30_000, 300_000))
        for name, use in map_futures.USES.items()
    ),
    *(
        (f"futures, {name}, thread", futures("thread", use), (3_000, 30_000, 300_000))
        for name, use in map_futures.USES.items()
    ),
    *(
        (f"errors, {kind}", errors(kind), (3_000, 30_000, 300_000))
        for kind in ("process", "thread", "serial")
    ),
    ("deaths", deaths, (10, 100, 1_000)),
    ("timeouts", timeouts, (100, 1_000, 10_000)),
    ("threads that map, process", callers("process"), (4, 20, 100)),
    ("threads that map, thread", callers("thread"), (4, 20, 100)),
    ("threads that submit", waiting_callers, (4, 20, 100)),
    *(
        (f"calls of one pool, {kind}", calls(kind), (100, 1_000, 10_000))
        for kind in ("process", "thread", "auto")
    ),
    ("processes", workers, (8, 40, 200)),
    ("threads", threads, (8, 40, 200)),
    ("functions", functions, (100, 1_000, 10_000)),
    ("spans of one name", spans, (1_000, 10_000, 100_000)),
    ("open generators", generators, (3, 30, 300)),
]


def exponent(sizes: tuple[int, ...], seconds: list[float]) -> float:
    """The slope of the logarithms by least squares."""
    xs, ys = [math.log(size) for size in sizes], [math.log(each) for each in seconds]
    return statistics.linear_regression(xs, ys).slope


def measure(row: Row) -> list[float]:
    """Median seconds at each size."""
    _, run, sizes = row
    run(sizes[0])
    times = [[run(size) for size in sizes] for _ in range(ROUNDS)]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", default="", help="parts of the names of rows, separated by commas"
    )
    wanted = parser.parse_args().only.split(",")
    rows = [row for row in ROWS if any(part in row[0] for part in wanted)]
    results = {}
    print(f"{'':38}{'three sizes':>24}{'us each':>30}  exponent")
    for row in rows:
        name, _, sizes = row
        seconds = measure(row)
        slope = exponent(sizes, seconds)
        each = "".join(
            f"{1e6 * took / size:10.1f}" for took, size in zip(seconds, sizes, strict=True)
        )
        shown = " / ".join(f"{size:,}" for size in sizes)
        print(
            f"{name:38}{shown:>24}{each}  {slope:8.2f}  {'ok' if slope <= MOST else 'SHORT'}",
            flush=True,
        )
        results[name] = {"sizes": sizes, "seconds": seconds, "exponent": slope}
    OUT.mkdir(exist_ok=True)
    (OUT / "growth.json").write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
