# SPDX-License-Identifier: BSD-3-Clause
"""The loop that runs a batch: one by one, or in blocks where an item takes next to nothing."""

import time
from typing import Any

from teamster.spine.workers.batch import FunctionSpec
from teamster.spine.workers.runner import BULK_ITEMS, Runner
from teamster.spine.workers.scoreboard import LIMIT, STARTED, WIDTH, Scoreboard


class Collect:
    """A sink that remembers the size of what it was given."""

    def __init__(self) -> None:
        self.results: dict[int, Any] = {}
        self.sizes: list[int] = []

    def keep(self, first: int, values: list[Any]) -> None:
        self.results.update(enumerate(values, first))
        self.sizes.append(len(values))

    def keep_failure(self, first: int, error: BaseException) -> None:
        self.results[first] = error
        self.sizes.append(1)


def run(function: Any, count: int, **options: Any) -> tuple[Collect, int]:
    sink = Collect()
    scoreboard = Scoreboard.private()
    runner = Runner(FunctionSpec(function, **options), function, scoreboard.words)
    return sink, runner.run(range(count), 1, 0, sink)


def test_tiny_items_run_in_blocks_from_the_first_batch_on() -> None:
    """An explicit chunk of 12,500 took 37 ms instead of 13.

    The whole of it was run to see that its items are tiny.
    """
    sink, ran = run(abs, 20_000)
    assert ran == 20_000
    assert sink.results == {number + 1: number for number in range(20_000)}
    assert max(sink.sizes) > 1
    assert len(sink.sizes) < 5_000
    assert max(sink.sizes) <= BULK_ITEMS


def test_items_that_become_slow_run_one_by_one_again() -> None:
    def function(number: int) -> int:
        if number >= 6_000:
            time.sleep(0.00005)
        return number

    sink, ran = run(function, 9_000)
    assert ran == 9_000
    assert sink.results == {number + 1: number for number in range(9_000)}
    assert sink.sizes[-500:] == [1] * 500


def test_careful_jobs_know_every_item() -> None:
    sink, _ = run(abs, 3_000, one_by_one=True)
    assert sink.sizes == [1] * 3_000


def test_an_exception_in_a_block_is_one_items() -> None:
    def function(number: int) -> int:
        if number % 1_000 == 999:
            raise StopIteration if number % 2_000 == 999 else LookupError
        return number

    sink, ran = run(function, 5_000)
    assert ran == 5_000
    kinds = {
        number: type(value).__name__
        for number, value in sink.results.items()
        if isinstance(value, Exception)
    }
    assert kinds == {
        1_000: "StopIteration",
        2_000: "LookupError",
        3_000: "StopIteration",
        4_000: "LookupError",
        5_000: "StopIteration",
    }


def test_the_limit_stops_it_wherever_it_is() -> None:
    for limit in (1, 30, 64, 65, 4_000):
        sink, scoreboard = Collect(), Scoreboard.private()
        scoreboard.words[LIMIT] = limit
        ran = Runner(FunctionSpec(abs), abs, scoreboard.words).run(range(9_000), 1, 0, sink)
        assert len(sink.results) == ran
        assert limit - 1 <= ran < limit - 1 + BULK_ITEMS
        assert scoreboard.words[STARTED] + scoreboard.words[WIDTH] > ran
