# SPDX-License-Identifier: BSD-3-Clause
"""Law 2 under everything at once.

Several threads, every kind of call, deaths, exceptions, timeouts, large results, early exits.
"""

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import as_completed
from itertools import count, islice
from typing import Any

import pytest

import teamster as ts


def make_task() -> Callable[[tuple[str, int]], Any]:
    """What an item does is in its name.

    By value: a new worker does not have to import this module, and pytest with it.
    """

    def task(spec: tuple[str, int]) -> Any:
        what, number = spec
        if what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "leave":
            os._exit(3)
        if what == "raise":
            raise KeyError(number)
        if what == "late":
            time.sleep(30)
        if what == "sleep":
            time.sleep(0.004)
        if what == "large":
            return large(number)
        if what == "print":
            print(end="")
        return number

    def large(number: int) -> bytes:
        return bytes([number]) * 300_000

    return task


task = make_task()


def is_right(spec: tuple[str, int], result: Any) -> bool:
    what, number = spec
    if what in ("die", "leave"):
        return isinstance(result, ts.WorkerDied)
    if what == "raise":
        return isinstance(result, KeyError) and result.args == (number,)
    if what == "late":
        return isinstance(result, ts.TaskTimeout)
    if what == "large":
        return bool(result == bytes([number]) * 300_000)
    return bool(result == number)


def specs_of(chance: random.Random, size: int, timeouts: bool) -> list[tuple[str, int]]:
    kinds = (
        ["plain"] * 30
        + ["sleep"] * 6
        + ["large"] * 3
        + ["print"] * 2
        + ["raise", "die", "leave"]
        + ["late"] * timeouts
    )
    return [(chance.choice(kinds), number) for number in range(size)]


def one_call(
    pool: ts.Pool, chance: random.Random, timeouts: bool
) -> list[tuple[tuple[str, int], Any]]:
    """One call of some kind; what was asked for, and what came."""
    specs = specs_of(chance, chance.choice([0, 1, 3, 40, 100]), timeouts)
    chunksize = chance.choice([None, None, 1, 10])
    kind = chance.choice(["map", "imap", "unordered", "submit", "early", "cancel"])
    if kind == "map":
        return list(
            zip(specs, pool.map(task, specs, on_error="return", chunksize=chunksize), strict=True)
        )
    if kind == "imap":
        return list(
            zip(
                specs,
                pool.imap(task, iter(specs), on_error="return", chunksize=chunksize),
                strict=True,
            )
        )
    if kind == "unordered":
        results = list(
            pool.imap_unordered(
                lambda spec: (spec, task(spec)), specs, on_error="return", chunksize=chunksize
            )
        )
        whole = [result for result in results if isinstance(result, tuple)]
        failed = len([spec for spec in specs if spec[0] in ("die", "leave", "raise", "late")])
        assert len(results) == len(specs)
        assert len(results) - len(whole) == failed
        return whole
    if kind == "early":
        stream = pool.imap(
            task, (("sleep" if n % 3 else "plain", n) for n in count()), chunksize=chunksize
        )
        first = list(islice(stream, chance.randrange(20)))
        stream.close()
        return [(("plain", n), result) for n, result in enumerate(first)]
    futures = {pool.submit(task, spec): spec for spec in specs[:20]}
    if kind == "cancel":
        for future in list(futures):
            if chance.random() < 0.5 and future.cancel():
                del futures[future]
    return [
        (futures[future], future.exception() or future.result())
        for future in as_completed(futures, timeout=20)
    ]


@pytest.mark.parametrize("seed", range(6))
def test_several_threads_and_every_kind_of_call(seed: int) -> None:
    """Trap 42: each call gets its own answers, whatever happens to the others."""
    timeouts = seed % 2 == 1
    wrong: list[Any] = []
    finished: list[int] = []

    def use(number: int) -> None:
        chance = random.Random(seed * 100 + number)
        try:
            for _ in range(5):
                wrong.extend(
                    pair for pair in one_call(pool, chance, timeouts) if not is_right(*pair)
                )
        except BaseException as error:
            wrong.append(error)
            raise
        finished.append(number)

    with ts.Pool("process", workers=2 + seed % 3, timeout=0.25 if timeouts else None) as pool:
        threads = [threading.Thread(target=use, args=(number,), daemon=True) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert wrong == []
        assert sorted(finished) == [0, 1, 2]
        assert pool.map(abs, range(-50, 0)) == list(range(50, 0, -1))
