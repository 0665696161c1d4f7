# SPDX-License-Identifier: BSD-3-Clause
"""What a span costs, and what nobody pays who does not record.

Question: under 1 us and under 100 bytes a span while recording; nothing measurable while not?
Method:   with and without a recorder in turn, in one run, medians of rounds: steps by processor
          time, whole maps by the clock.
Command:  make bench-trace
Result:   see README, "What happened".
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import teamster as ts
from teamster.spine.trace import spans
from teamster.spine.trace.ring import COMPUTE, RECORD_NBYTES, Ring
from teamster.spine.workers.batch import FunctionSpec
from teamster.spine.workers.runner import Runner
from teamster.spine.workers.scoreboard import Scoreboard


class Nowhere:
    """Takes results and keeps none."""

    def keep(self, first: int, values: list[object]) -> None:
        """Take results."""

    def keep_failure(self, first: int, error: BaseException) -> None:
        """Take an exception."""


class OneRing:
    """A recorder of one thread, without the thread that reads."""

    def __init__(self) -> None:
        self._ring = Ring.private()

    def ring(self) -> Ring:
        return self._ring


def per_call_ns(function: Callable[[int], object], count: int) -> float:
    began = time.thread_time_ns()  # of the processor: other programs do not count
    function(count)
    return (time.thread_time_ns() - began) / count


def spin(number: int) -> int:
    """About 5 us."""
    total = 0
    for each in range(120):
        total += each
    return total + number


def run_items(count: int) -> None:
    scoreboard = Scoreboard.private()
    runner = Runner(FunctionSpec(spin, "call", None, True), spin, scoreboard.words)
    runner.run(range(count), 1, 0, Nowhere())


def use_spans(count: int) -> None:
    for _ in range(count):
        with ts.span("part"):
            pass


def write_records(count: int) -> None:
    write = spans.current_ring().write if spans.current_ring() is not None else (lambda *_: None)
    clock = time.perf_counter_ns
    for number in range(count):
        write(clock(), clock(), number, 1, 1, COMPUTE)


def loop(count: int) -> None:
    for _ in range(count):
        pass


def costs(rounds: int, count: int) -> dict[str, tuple[float, float]]:
    """Nanoseconds with nobody recording, and with somebody."""
    cases = {
        "an item in a worker": run_items,
        "ts.span": use_spans,
        "a record, clocks read": write_records,
        "empty loop": loop,
    }
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in cases}
    for _ in range(rounds):
        for on in (False, True):
            spans.install(OneRing() if on else None)  # type: ignore[arg-type]
            for name, function in cases.items():
                found[name][on].append(per_call_ns(function, count))
    spans.install(None)
    return {
        name: (statistics.median(off), statistics.median(on)) for name, (off, on) in found.items()
    }


def maps(rounds: int, items: int, backend: str) -> tuple[float, float]:
    """Seconds of a whole map of 5 us functions, not recorded and recorded."""
    times: tuple[list[float], list[float]] = ([], [])
    with ts.Pool(backend, workers=2) as pool:  # type: ignore[arg-type]
        pool.map(spin, range(1_000))
        for _ in range(rounds):
            for recorded in (False, True):
                began = time.perf_counter()
                if recorded:
                    with ts.record():
                        pool.map(spin, range(items))
                        took = time.perf_counter() - began
                else:
                    pool.map(spin, range(items))
                    took = time.perf_counter() - began
                times[recorded].append(took)
    return statistics.median(times[0]), statistics.median(times[1])


def sizes() -> dict[str, float]:
    """Bytes a span in the files, of 100,000 spans."""
    with ts.record() as recording, ts.Pool("process", workers=2) as pool:
        pool.map(spin, range(100_000), chunksize=1_000)
    count, found = recording.timeline.spans, {}
    with tempfile.TemporaryDirectory() as folder:
        for ending in ("html", "json", "pftrace"):
            path = Path(folder) / f"run.{ending}"
            recording.save(path)
            found[ending] = path.stat().st_size / count
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--count", type=int, default=50_000)
    arguments = parser.parse_args()
    print(f"{'':36}{'nobody records':>16}{'recorded':>12}{'a span costs':>15}")
    for name, (off, on) in costs(arguments.rounds, arguments.count).items():
        print(f"{name:36}{off:>13.0f} ns{on:>9.0f} ns{on - off:>12.0f} ns")
    for backend in ("process", "thread"):
        off_s, on_s = maps(arguments.rounds, 4 * arguments.count, backend)
        print(
            f"{f'map of {4 * arguments.count:,}, {backend}':36}{off_s:>14.3f} s"
            f"{on_s:>10.3f} s{on_s / off_s:>14.2f}x"
        )
    print(
        f"\na record is {RECORD_NBYTES} bytes in memory; in files: "
        + ", ".join(f".{k} {v:.0f}" for k, v in sizes().items())
    )


if __name__ == "__main__":
    main()
