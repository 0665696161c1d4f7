# SPDX-License-Identifier: BSD-3-Clause
"""The caller's own loop: every item once, errors in their places, and dear items taken back by the
lookout.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from teamster.spine.plan.safety.check import SafetyCheck
from teamster.spine.workers.batch import CallStyle
from teamster.spine.workers.worker_info import current_worker
from teamster.tasks.auto.caller import CallerRunner
from teamster.tasks.source import Source


class Results:
    """Takes what comes."""

    def __init__(self) -> None:
        self.values: dict[int, Any] = {}
        self.stop = False  # at the first error

    def take_here(self, first: int, values: list[Any]) -> None:
        for offset, value in enumerate(values):
            assert first + offset not in self.values
            self.values[first + offset] = value

    def list_here(self, first: int) -> None:
        return None

    def took_here(self, count: int) -> None:
        raise AssertionError("there is no list of ours")

    def fail_here(self, index: int, error: BaseException) -> bool:
        assert index not in self.values
        self.values[index] = error
        return not self.stop


def make(
    function: Callable[..., Any], items: Any, style: CallStyle = "call", seed: int | None = None
) -> tuple[CallerRunner, Source, Results]:
    source, results = Source((items,)), Results()
    return CallerRunner(function, style, seed, source, results), source, results


def run(here: CallerRunner, source: Source) -> None:
    while not source.exhausted:
        here.run(1_000_000, lambda: False)


@pytest.mark.parametrize("count", [0, 1, 7, 30_000])
def test_every_item_once_and_in_order(count: int) -> None:
    here, source, results = make(lambda n: n + 1, iter(range(count)))
    run(here, source)
    assert list(results.values.items()) == [(n, n + 1) for n in range(count)]
    assert here.clock.items == count


def test_unpacked_arguments() -> None:
    here, source, results = make(pow, [(2, 5), (3, 2)], "star")
    run(here, source)
    assert list(results.values.values()) == [32, 9]


def fragile(number: int) -> int:
    if number % 1_000 == 7:
        raise StopIteration(number)
    if number % 1_000 == 9:
        raise KeyError(number)
    if number % 1_000 == 11:
        raise SystemExit(number)
    return number


def test_errors_stay_in_their_places() -> None:
    here, source, results = make(fragile, range(20_000))
    here.watch()
    try:
        run(here, source)
    finally:
        here.unwatch()
    failed = {n for n in range(20_000) if n % 1_000 in (7, 9, 11)}
    assert {n for n, value in results.values.items() if isinstance(value, Exception)} == failed
    assert all(results.values[n] == n for n in range(20_000) if n not in failed)


def test_nothing_runs_after_the_first_error_where_that_is_the_end() -> None:
    ran: list[int] = []
    here, source, results = make(lambda n: ran.append(n) or 1 // (n - 30), range(1_000))
    results.stop = True
    while 30 not in results.values:
        here.run(1, lambda: 30 in results.values)
    assert ran == list(range(31))
    assert (source.pulled, source.exhausted) == (31, False)


def test_ctrl_c_goes_through() -> None:
    def interrupt(number: int) -> int:
        if number == 500:
            raise KeyboardInterrupt
        return number

    here, source, _ = make(interrupt, range(1_000))
    with pytest.raises(KeyboardInterrupt):
        run(here, source)
    assert current_worker() is None


def test_the_code_knows_that_it_is_a_worker() -> None:
    here, source, results = make(lambda _: current_worker().kind, range(3))  # type: ignore[union-attr]
    run(here, source)
    assert set(results.values.values()) == {"serial"}
    assert current_worker() is None


def test_seeded_items_repeat() -> None:
    import random

    state = random.getstate()
    numbers = []
    for _ in range(2):
        here, source, results = make(lambda _: random.random(), range(300), seed=3)
        run(here, source)
        numbers.append(results.values)
    assert numbers[0] == numbers[1]
    assert len(set(numbers[0].values())) == 300
    assert random.getstate() == state


def test_the_lookout_takes_back_what_waits_behind_a_dear_item() -> None:
    """A chunk of thousands of tiny items meets one that does not end.

    The rest must be there for others.
    """
    go_on, stuck = threading.Event(), list[int]()

    def turn(number: int) -> int:
        if (
            number >= 40_000 and not stuck and here._running is not None
        ):  # there is a rest: on a busy machine a chunk may be one item
            stuck.append(number)
            assert go_on.wait(10)
        return number

    here, source, results = make(turn, range(100_000))
    here.watch()
    try:
        thread = threading.Thread(
            target=here.run, args=(10**12, lambda: stuck and stuck[0] in results.values)
        )
        thread.start()
        deadline = time.monotonic() + 10
        while not here._taken and time.monotonic() < deadline:
            time.sleep(0.001)
        assert here._taken, "nobody took them back"
        go_on.set()
        thread.join()
        assert set(results.values) == set(range(stuck[0] + 1))
        assert source.pulled == stuck[0] + 1
        run(here, source)
    finally:
        here.unwatch()
    assert list(results.values.items()) == [(n, n) for n in range(100_000)]


def test_the_evidence() -> None:
    here, source, _ = make(lambda _: time.sleep(0.01), range(10))
    run(here, source)
    assert here.clock.item_s > 0.009
    assert here.clock.cpu_s < 0.5 * here.clock.item_s


def test_the_first_item_is_good_for_a_guess_only() -> None:
    here, source, _ = make(lambda n: time.sleep(0.2 if n == 0 else 0.001), range(40))
    here.run(1, lambda: False)
    assert here.clock.item_s > 0.1
    run(here, source)
    assert here.clock.item_s < 0.1


def test_a_checked_item_counts() -> None:
    here, source, results = make(abs, [-1, -2])
    safety = SafetyCheck(abs)
    here.run_checked(safety, 5.0)
    assert safety.settled
    run(here, source)
    assert list(results.values.values()) == [1, 2]
    here.run_checked(safety, 5.0)  # nothing is left
