# SPDX-License-Identifier: BSD-3-Clause
"""One process for one call: `ts.spawn` beside `multiprocessing.Process` and its pipe.

Question: is a process there as soon, a small message as fast, and a large array faster?
Method:   interleaved, medians of rounds; the fork server of each runs already, as after a program's
          first process.
Command:  make bench-spawn
Result:   see docs/coming_from.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

import teamster as ts

Timed = Callable[[], float]


def echo_ours() -> None:
    parent = ts.parent()
    assert parent is not None
    while (message := parent.recv()) is not None:
        parent.send(message)


def echo_theirs(pipe: Connection) -> None:
    while (message := pipe.recv()) is not None:
        pipe.send(message)


def get_theirs(pipe: Connection) -> None:
    pipe.send(os.getpid())


def start_ours(count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        process = ts.spawn(os.getpid)
        process.result()
        process.join()
    return (time.perf_counter() - began) / count


def start_theirs(context: Any, count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        ours, theirs = context.Pipe()
        process = context.Process(target=get_theirs, args=(theirs,))
        process.start()
        ours.recv()
        process.join()
    return (time.perf_counter() - began) / count


def talk(
    send: Callable[[Any], None], receive: Callable[[], Any], message: Any, count: int
) -> float:
    """Seconds of a message there and back."""
    began = time.perf_counter()
    for _ in range(count):
        send(message)
        receive()
    seconds = (time.perf_counter() - began) / count
    send(None)
    return seconds


def talk_ours(message: Any, count: int) -> float:
    with ts.spawn(echo_ours) as process:
        process.send(0)
        process.recv()
        return talk(process.send, process.recv, message, count)


def talk_theirs(context: Any, message: Any, count: int) -> float:
    ours, theirs = context.Pipe()
    process = context.Process(target=echo_theirs, args=(theirs,))
    process.start()
    ours.send(0)
    ours.recv()
    seconds = talk(ours.send, ours.recv, message, count)
    process.join()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description="Processes side by side")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    context = multiprocessing.get_context("forkserver")
    array = np.ones(5_000_000)  # 40 MB
    rows: dict[str, tuple[Timed, Timed]] = {
        "start to end of a process": (lambda: start_ours(10), lambda: start_theirs(context, 10)),
        "a number there and back": (
            lambda: talk_ours(1, 2_000),
            lambda: talk_theirs(context, 1, 2_000),
        ),
        "40 MB there and back": (
            lambda: talk_ours(array, 10),
            lambda: talk_theirs(context, array, 10),
        ),
    }
    start_ours(1)
    start_theirs(context, 1)
    print(f"{'':<28}{'ours':>12}{'multiprocessing':>18}{'ratio':>8}")
    for name, (ours, theirs) in rows.items():
        taken = [(ours(), theirs()) for _ in range(arguments.rounds)]
        mine, other = (statistics.median(each) for each in zip(*taken, strict=True))
        print(f"{name:<28}{mine * 1e3:>9.3f} ms{other * 1e3:>15.3f} ms{mine / other:>8.2f}")


if __name__ == "__main__":
    main()
