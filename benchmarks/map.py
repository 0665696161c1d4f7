# SPDX-License-Identifier: BSD-3-Clause
"""How fast is the parallel map beside its peers?

Question: the time of each workload with Teamster and with the tools that people use today, on this
machine, in this run.
Method: every contender of a workload runs once a round, in turn, with warm pools (but for the cold
start); medians of the rounds. Only the ratios mean anything: machines are shared, and absolute
times drift.
Command: ``make bench`` (all), ``make bench ARGS="--only no-op,cold --rounds 3"``.
Result: a table on stdout, ``benchmarks/out/map.json``, ``benchmarks/out/map.png``.
"""

from __future__ import annotations

import argparse
import concurrent.futures as cf
import json
import multiprocessing as mp
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import teamster as ts
from benchmarks import work
from benchmarks.map_futures import USES, of_processes, of_threads
from benchmarks.map_programs import OURS, Contenders, cold_start, own_class

OUT = Path(__file__).parent / "out"
BEST = "the fastest peer"
WORKERS = 2


class Workload:
    """What is measured, and what is to be reached.

    Our time divided by that of a rival, at most `most`.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[ExitStack], Contenders],
        goals: dict[str, float],
        rounds: int | None = None,
    ) -> None:
        self.name = name
        self.make = make
        self.goals = goals
        self.rounds = rounds


def consume(results: Iterator[Any]) -> None:
    for _ in results:
        pass


@contextmanager
def pools() -> Iterator[tuple[ts.Pool, Any, cf.ProcessPoolExecutor]]:
    """Ours, Pool and ProcessPoolExecutor, warm."""
    server = mp.get_context("forkserver")
    with (
        ts.Pool("process", workers=WORKERS) as ours,
        server.Pool(WORKERS) as pool,
        cf.ProcessPoolExecutor(WORKERS, mp_context=server) as executor,
    ):
        for call in (ours.map, pool.map, lambda f, xs: list(executor.map(f, xs))):
            call(work.same, range(100))
        yield ours, pool, executor


def more_peers(
    stack: ExitStack, function: Callable[[Any], Any], xs: Any, chunk: int = 1
) -> Contenders:
    """The process pools from outside the standard library.

    Joblib and mpire size their batches, loky and pebble get `chunk`.
    """
    import joblib
    import loky
    import mpire
    import pebble

    of_mpire = stack.enter_context(mpire.WorkerPool(WORKERS, keep_alive=True))
    of_pebble = stack.enter_context(
        pebble.ProcessPool(WORKERS, context=mp.get_context("forkserver"))
    )
    of_loky = loky.get_reusable_executor(WORKERS)
    suffix = f", chunk {chunk:,}" if chunk > 1 else ""
    contenders: Contenders = {
        "joblib": lambda: joblib.Parallel(WORKERS)(joblib.delayed(function)(x) for x in xs),
        "mpire": lambda: of_mpire.map(
            function, xs, iterable_len=len(xs), concatenate_numpy_output=False
        ),
        f"loky{suffix}": lambda: consume(of_loky.map(function, xs, chunksize=chunk)),
        f"pebble{suffix}": lambda: consume(of_pebble.map(function, xs, chunksize=chunk).result()),
    }
    for run in contenders.values():
        run()
    return contenders


def single_messages(stack: ExitStack) -> Contenders:
    ours, pool, executor = stack.enter_context(pools())
    return {
        OURS: lambda: consume(ours.imap(work.same, range(30_000), chunksize=1)),
        "Pool.imap": lambda: consume(pool.imap(work.same, range(30_000))),
        "ProcessPoolExecutor": lambda: consume(executor.map(work.same, range(30_000))),
    }


def tiny(stack: ExitStack) -> Contenders:
    ours, pool, executor = stack.enter_context(pools())
    xs = range(100_000)
    return {
        OURS: lambda: ours.map(work.same, xs),
        "Pool.map": lambda: pool.map(work.same, xs),
        "ProcessPoolExecutor, chunk 10,000": lambda: list(
            executor.map(work.same, xs, chunksize=10_000)
        ),
        **more_peers(stack, work.same, xs, 10_000),
    }


def tiny_in_threads(stack: ExitStack) -> Contenders:
    ours = stack.enter_context(ts.Pool("thread", workers=WORKERS))
    executor = stack.enter_context(cf.ThreadPoolExecutor(WORKERS))
    return {
        OURS: lambda: ours.map(work.same, range(100_000)),
        "ThreadPoolExecutor": lambda: list(executor.map(work.same, range(100_000))),
        "loop": lambda: [work.same(x) for x in range(100_000)],
    }


def short_tasks(function: Callable[[int], int], stack: ExitStack) -> Contenders:
    ours, pool, executor = stack.enter_context(pools())
    xs = range(2_000)
    return {
        OURS: lambda: ours.map(function, xs),
        "Pool.map": lambda: pool.map(function, xs),
        "ProcessPoolExecutor, chunk 50": lambda: list(executor.map(function, xs, chunksize=50)),
        **more_peers(stack, function, xs, 50),
        "loop": lambda: [function(x) for x in xs],
    }


def sleeping(stack: ExitStack) -> Contenders:
    ours = stack.enter_context(ts.Pool("thread", workers=32))
    executor = stack.enter_context(cf.ThreadPoolExecutor(32))
    return {
        OURS: lambda: ours.map(work.nap, [0.01] * 400),
        "ThreadPoolExecutor(32)": lambda: list(executor.map(work.nap, [0.01] * 400)),
    }


def large_arguments(stack: ExitStack) -> Contenders:
    import numpy as np

    ours, pool, executor = stack.enter_context(pools())
    # Not one array 20 times: joblib would send it once
    arrays = [np.full(5_000_000, float(number)) for number in range(20)]
    contenders: Contenders = {
        OURS: lambda: consume(ours.imap(work.first, arrays)),
        "Pool.imap": lambda: consume(pool.imap(work.first, arrays)),
        "ProcessPoolExecutor": lambda: consume(executor.map(work.first, arrays)),
        **more_peers(stack, work.first, arrays),
    }
    contenders[OURS]()  # the first touch of the shared memory is part of the warm-up
    return contenders


def large_results(stack: ExitStack) -> Contenders:
    ours, pool, executor = stack.enter_context(pools())
    contenders: Contenders = {
        OURS: lambda: consume(ours.imap(work.full, range(20))),
        "Pool.imap": lambda: consume(pool.imap(work.full, range(20))),
        "ProcessPoolExecutor": lambda: consume(executor.map(work.full, range(20))),
        **more_peers(stack, work.full, range(20)),
        "loop": lambda: consume(map(work.full, range(20))),
    }
    contenders[OURS]()
    return contenders


def shared_array(stack: ExitStack) -> Contenders:
    import numpy as np

    ours, pool, _ = stack.enter_context(pools())
    function = partial(work.at, np.ones(50_000_000))
    return {
        OURS: lambda: ours.map(function, range(20)),
        "Pool.map": lambda: pool.map(function, range(20), chunksize=1),
    }


def imbalance(stack: ExitStack) -> Contenders:
    ours, pool, _ = stack.enter_context(pools())
    naps = [0.001] * 1_000
    naps[617] = 0.1
    half = [0.001] * 500 + [0.05]  # what each of two workers has to do in the perfect schedule
    return {
        OURS: lambda: ours.map(work.nap, naps),
        "perfect schedule": lambda: [work.nap(seconds) for seconds in half],
        "Pool.map": lambda: pool.map(work.nap, naps),
    }


def round_trips(stack: ExitStack) -> Contenders:
    ours, _, executor = stack.enter_context(pools())
    ours.submit(abs, 1).result()
    return {
        OURS: lambda: [ours.submit(work.same, x).result() for x in range(20_000)],
        "ProcessPoolExecutor": lambda: [
            executor.submit(work.same, x).result() for x in range(20_000)
        ],
    }


WORKLOADS = [
    Workload("one message at a time, no-op x 30,000", single_messages, {"Pool.imap": 1.1}),
    Workload("no-op x 100,000, process", tiny, {BEST: 1.3}),
    Workload("no-op x 100,000, thread", tiny_in_threads, {"ThreadPoolExecutor": 1 / 20}),
    Workload("0.4 ms loop x 2,000, process", partial(short_tasks, work.loop), {BEST: 1 / 0.97}),
    Workload(
        "0.4 ms checksum in C x 2,000, process",
        partial(short_tasks, work.checksum),
        {BEST: 1 / 0.97},
    ),
    Workload("10 ms sleep x 400, 32 threads", sleeping, {"ThreadPoolExecutor(32)": 1 / 0.97}),
    Workload("40 MB in x 20, process", large_arguments, {BEST: 1 / 15}),
    Workload("40 MB out x 20, process", large_results, {"loop": 1.3, BEST: 1 / 15}),
    Workload("400 MB array shared by 20 tasks", shared_array, {"Pool.map": 1 / 50}, rounds=1),
    Workload("imbalance: 1,000 of 1 ms, one of 100 ms", imbalance, {"perfect schedule": 1.1}),
    Workload("submit().result() x 20,000", round_trips, {"ProcessPoolExecutor": 1 / 1.5}, rounds=3),
    *(
        Workload(
            f"futures, {name} x {count:,}, process",
            partial(of_processes, use, count),
            {"ProcessPoolExecutor": 0.5},
            rounds=3,
        )
        for name, use in USES.items()
        for count in (1_000, 10_000, 100_000)
    ),
    *(
        Workload(
            f"futures, {name} x {count:,}, thread",
            partial(of_threads, use, count),
            {"ThreadPoolExecutor": 0.7},
            rounds=3,
        )
        for name, use in USES.items()
        for count in (1_000, 10_000, 100_000)
    ),
    Workload("instances of the program's own class x 100,000", own_class, {"Pool.map": 1.0}),
    Workload("cold start", cold_start, {"Pool, fork server": 1.3}),
]


def measure(workload: Workload, rounds: int) -> dict[str, list[float]]:
    """Seconds of every contender in every round."""
    with ExitStack() as stack:
        contenders = workload.make(stack)
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(min(rounds, workload.rounds or rounds)):
            for name, run in contenders.items():
                began = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - began)
    return times


def show(workload: Workload, times: dict[str, list[float]]) -> None:
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    ours = medians[OURS]
    print(f"\n{workload.name}")
    for name, seconds in medians.items():
        print(f"  {name:36} {seconds * 1e3:10.1f} ms   {seconds / ours:8.2f} x ours")
    best = min((name for name in medians if name not in (OURS, "loop")), key=medians.__getitem__)
    for rival, most in workload.goals.items():
        rival = best if rival == BEST else rival
        ratio = ours / medians[rival]
        print(
            f"  asked: at most {most:.3f} of {rival}; measured {ratio:.3f}: "
            f"{'ok' if ratio <= most else 'SHORT'}",
            flush=True,
        )


def plot(results: dict[str, dict[str, list[float]]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        len(results),
        1,
        figsize=(9, 0.7 * len(results) + 0.22 * sum(map(len, results.values()))),
        squeeze=False,
        sharex=True,
        height_ratios=[len(times) + 1 for times in results.values()],
    )
    for axis, (name, times) in zip(axes[:, 0], results.items(), strict=True):
        names = list(times)[::-1]
        medians = {each: statistics.median(times[each]) for each in names}
        axis.axvline(1, color="tab:orange", linewidth=1, zorder=0)
        for each in names:  # points, not bars: on a logarithmic axis a bar's length means nothing
            ratio = medians[each] / medians[OURS]
            axis.plot(ratio, each, "o", color="tab:orange" if each == OURS else "tab:gray")
            axis.annotate(
                f"{medians[each] * 1e3:,.1f} ms",
                (ratio, each),
                (7, -3),
                textcoords="offset points",
                fontsize=8,
            )
        axis.set_xscale("log")
        axis.set_xlim(0.4, 1_000)
        axis.margins(y=0.5 / len(names))
        axis.set_title(name, fontsize=9, loc="left")
        axis.tick_params(labelsize=8, length=0)
        axis.grid(axis="x", color="0.92")
        axis.spines[["top", "right", "left"]].set_visible(False)
    axes[-1, 0].set_xlabel("time, as a multiple of Teamster's", fontsize=9)
    figure.tight_layout()
    figure.savefig(OUT / "map.png", dpi=110)


def main() -> None:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        # Before numpy is loaded by the first workload that needs it
        os.environ.setdefault(name, "1")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--only", default="", help="parts of the names of workloads, separated by commas"
    )
    arguments = parser.parse_args()
    wanted = [
        each for each in WORKLOADS if any(part in each.name for part in arguments.only.split(","))
    ]
    OUT.mkdir(exist_ok=True)
    results: dict[str, dict[str, list[float]]] = {}
    for workload in wanted:
        results[workload.name] = measure(workload, arguments.rounds)
        show(workload, results[workload.name])
    facts = {"machine": ts.Machine.detect().to_dict(), "workers": WORKERS, "seconds": results}
    (OUT / "map.json").write_text(json.dumps(facts, indent=2))
    plot(results)


if __name__ == "__main__":
    main()
