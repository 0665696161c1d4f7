# SPDX-License-Identifier: BSD-3-Clause
"""Law 4: `map` and `imap` give input order; `imap_unordered` gives completion order."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import teamster as ts

BACKENDS = ["serial", "thread", "process"]


def dawdle(seed: int) -> Callable[[int], int]:
    """A function whose items take up to 8 ms, in no order that their number would tell."""

    def run(number: int) -> int:
        time.sleep(random.Random(seed * 1000 + number).choice([0, 0, 0, 0.001, 0.008]))
        return number

    return run


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("chunksize", [None, 1, 7])
@pytest.mark.parametrize("seed", [1, 2])
def test_input_order(backend: Any, chunksize: int | None, seed: int) -> None:
    with ts.Pool(backend, workers=3) as pool:
        assert pool.map(dawdle(seed), range(80), chunksize=chunksize) == list(range(80))
        results = pool.imap(dawdle(seed), iter(range(80)), chunksize=chunksize)
        assert list(results) == list(range(80))
        pairs = [(n, 40) for n in range(80)]
        assert pool.starmap(max, pairs, chunksize=chunksize) == [max(n, 40) for n in range(80)]


@pytest.mark.parametrize("call", ["map", "imap"])
def test_input_order_across_deaths_and_retries(call: str, tmp_path: Path) -> None:
    """What runs again comes last and is given in its place."""

    def run(number: int) -> int:
        if number % 10 == 3 and not (tmp_path / str(number)).exists():
            (tmp_path / str(number)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    with ts.Pool("process", workers=2, retries=1) as pool:
        assert list(getattr(pool, call)(run, range(40))) == list(range(40))
        assert pool.report().deaths == 4


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_completion_order(backend: Any, tmp_path: Path) -> None:
    """The first item waits for the file that its reader makes after every other result has come."""

    def run(number: int) -> int:
        deadline = time.monotonic() + 20
        while (
            number == 0 and not (tmp_path / "others came").exists() and time.monotonic() < deadline
        ):
            time.sleep(0.001)
        return number

    came: list[int] = []
    with ts.Pool(backend, workers=2) as pool:
        for number in pool.imap_unordered(run, range(30)):
            came.append(number)
            if len(came) == 29:
                (tmp_path / "others came").touch()
    assert came[-1] == 0
    assert sorted(came) == list(range(30))


def test_completion_order_is_the_input_order_of_one_worker() -> None:
    with ts.Pool("serial") as pool:
        assert list(pool.imap_unordered(abs, range(-30, 0))) == list(range(30, 0, -1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_streams_of_several_threads_keep_their_own_order(backend: Any) -> None:
    outcomes: dict[int, list[int]] = {}

    def use(shift: int) -> None:
        outcomes[shift] = list(pool.imap(dawdle(shift), range(shift, shift + 60)))

    with ts.Pool(backend, workers=2) as pool:
        threads = [threading.Thread(target=use, args=(shift,)) for shift in (0, 100, 200)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert outcomes == {shift: list(range(shift, shift + 60)) for shift in (0, 100, 200)}
