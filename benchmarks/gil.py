# SPDX-License-Identifier: BSD-3-Clause
"""How right is the measured GIL-held share, and what does measuring cost?

Question: the share that `GilSampler` finds for work whose share is known, and how much slower the
work runs under it.
Method: each workload runs with and without the sampler in turn, ``--rounds`` times; medians.
Command: ``make bench-gil``.
Result: a table on stdout.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

from teamster.machine.gil import GilSampler, GilShare
from tests.machine.test_gil import WORK


def calls_in(work: Callable[[], object], seconds: float) -> float:
    """Calls a second."""
    began = time.perf_counter()
    calls = 0
    while (took := time.perf_counter() - began) < seconds:
        work()
        calls += 1
    return calls / took


def measure(work: Callable[[], object], rounds: int) -> tuple[GilShare | None, float]:
    """The last share, and how much slower the work was: 0.02 is 2%."""
    ratios: list[float] = []
    share: GilShare | None = None
    for _ in range(rounds):
        without = calls_in(work, 1.0)
        with GilSampler() as sampler:
            ratios.append(without / calls_in(work, 1.0) - 1)
        share = sampler.share()
    return share, statistics.median(ratios)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(f"{'work':20}{'truth':>8}  {'measured':28}{'slower by':>10}")
    for name, (work, truth) in WORK.items():
        share, slower = measure(work, arguments.rounds)
        print(f"{name:20}{truth:>8.0%}  {share!s:28}{slower:>10.1%}", flush=True)


if __name__ == "__main__":
    main()
