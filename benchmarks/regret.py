# SPDX-License-Identifier: BSD-3-Clause
"""How much is lost by leaving the choice to Teamster?

Question: how much slower than the best hand-made choice is ``backend="auto"`` on each workload, and
how bad is every fixed choice, and every peer at its defaults, on its worst workload?
Method: each contender runs once a round, with a new pool, in an order that moves on by one each
round; medians of the rounds. Each workload has a fresh process, whose fork servers and imports are
warm. What takes 3 times as long as the best in the first round (and 0.25 s) keeps that one figure.
joblib and mpire, which load NumPy, have their rounds after those of all others. The best is the
least of many medians, so noise alone puts a perfect choice a little above 1.
Command: ``python -m benchmarks.regret`` (all; an hour or two), ``python -m benchmarks.regret
--quick --only json,regex``. It needs what ``make bench`` and ``make test`` install.
Result: tables on stdout, ``benchmarks/out/regret.json`` with every run,
``benchmarks/out/regret.png``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import teamster as ts
from benchmarks.regret_contenders import contenders, measure
from benchmarks.regret_picture import draw
from benchmarks.regret_report import (
    Result,
    show_overview,
    show_result,
    show_summary,
    summary,
    to_values,
)
from benchmarks.regret_workloads import WORKLOADS

OUT = Path(__file__).parent / "out"


def run(number: int, rounds: int, scale: float, quick: bool) -> Result:
    """The workload of this number.

    What was loaded for another must not slow down the start of its workers.
    """
    workload, found = WORKLOADS[number], contenders(quick)
    with ExitStack() as stack:
        task = workload.make(stack, lambda items: max(2, round(items * scale)))
        print(f"{workload.name} x {len(task.inputs):,}", flush=True)
        measure(replace(task, limit_s=task.limit_s * max(1.0, scale)), found, rounds)
        return Result(workload.name, len(task.inputs), found)


def save(results: Sequence[Result], rounds: int, scale: float) -> None:
    facts = {
        "machine": ts.Machine.detect().to_dict(),
        "rounds": rounds,
        "scale": scale,
        "workloads": {result.name: to_values(result) for result in results},
        "summary": summary(results),
    }
    OUT.mkdir(exist_ok=True)
    (OUT / "regret.json").write_text(json.dumps(facts, indent=2, allow_nan=False))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", default="", help="parts of the names of workloads, separated by commas"
    )
    parser.add_argument("--rounds", type=int, help="5 if not given, 3 with --quick")
    parser.add_argument("--scale", type=float, default=1.0, help="times as many items")
    parser.add_argument("--quick", action="store_true", help="fewer contenders, no peers")
    arguments = parser.parse_args()
    parts = [part.strip().lower() for part in arguments.only.split(",")]
    names = [each.name for each in WORKLOADS]
    arguments.wanted = [
        number for number, name in enumerate(names) if any(part in name.lower() for part in parts)
    ]
    if not arguments.wanted:
        parser.error(f"no workload is called {arguments.only!r}; there are {', '.join(names)}")
    arguments.rounds = arguments.rounds or (3 if arguments.quick else 5)
    return arguments


def main() -> None:
    arguments = parse()
    began = time.perf_counter()
    results: list[Result] = []
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as fresh:
        for number in arguments.wanted:
            results.append(
                fresh.submit(
                    run, number, arguments.rounds, arguments.scale, arguments.quick
                ).result()
            )
            show_result(results[-1])
            save(results, arguments.rounds, arguments.scale)
    draw(results, OUT / "regret.png")
    show_overview(results)
    show_summary(results)
    print(f"\n{time.perf_counter() - began:,.0f} s in all")


if __name__ == "__main__":
    main()
