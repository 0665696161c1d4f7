# SPDX-License-Identifier: BSD-3-Clause
"""`backend="auto"`: what fails elsewhere and not here."""

import asyncio
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

import teamster as ts

CONNECTION = sqlite3.connect(":memory:", check_same_thread=True)
LOCAL = threading.local()
LOOP = asyncio.new_event_loop()
FAILED_HERE: list[int] = []
FAILED_THERE: list[int] = []
RUN_HERE: list[int] = []
STARTS: list[int] = []  # a list is changed by single steps of C


class Held:
    """A connection that no look finds: it stays out of the pickle."""

    def __init__(self) -> None:
        self.connection = CONNECTION

    def __reduce__(self) -> Any:
        return Held, ()


HELD = Held()


def hidden_connection(item: int) -> Any:
    row = HELD.connection.execute("select ?", (item,)).fetchone()
    time.sleep(0.003)
    return row[0]


def known_connection(item: int) -> Any:
    time.sleep(0.003)
    STARTS.append(item)
    return CONNECTION.execute("select ?", (item,)).fetchone()[0]


def alarm(item: int) -> int:
    old = signal.signal(signal.SIGALRM, lambda *_: None)
    time.sleep(0.003)
    signal.signal(signal.SIGALRM, old)
    return item


def attribute(item: int) -> int:
    item += LOCAL.zero
    time.sleep(0.003)
    return item


async def coroutine(item: int) -> int:
    await asyncio.sleep(0.003)
    return item


def event_loop(item: int) -> int:
    return LOOP.run_until_complete(coroutine(item))


@pytest.mark.parametrize("on_error", ["raise", "return"])
@pytest.mark.parametrize(
    "function", [hidden_connection, known_connection, alarm, attribute, event_loop]
)
def test_what_works_in_the_loop_works(function: Any, on_error: Any) -> None:
    LOCAL.zero = 0
    STARTS.clear()
    with ts.Pool() as pool:
        assert pool.map(function, range(200), on_error=on_error) == list(range(200))
        plan = pool.plan
    assert plan.backend != "thread"
    assert set(Counter(STARTS).values()) <= {1}
    assert "thread" not in {each.backend for each in plan.candidates if not each.note}


def late(item: int) -> int:
    STARTS.append(item)
    time.sleep(0.003)
    if threading.current_thread() is not threading.main_thread():
        RUN_HERE.clear()
        FAILED_THERE.append(item)
        raise AttributeError(item)
    RUN_HERE.append(item)
    return item


def test_what_had_begun_is_not_run_again_and_the_way_is_out() -> None:
    """The program may see the failures late: so there are items until 50 in a row have run here."""
    STARTS.clear()
    FAILED_THERE.clear()
    RUN_HERE.clear()

    def items() -> Iterator[int]:
        for item in range(30_000):
            if item >= 600 and FAILED_THERE and len(RUN_HERE) >= 50:
                return
            yield item

    with ts.Pool(allow=("serial", "thread")) as pool:
        results = list(pool.imap(late, items(), on_error="return"))
        failed = [each for each in results if isinstance(each, AttributeError)]
        assert sorted(STARTS) == list(range(len(results)))
        assert 0 < len(failed) <= len(results) - 50
        assert results[-1] == len(results) - 1
        assert "items failed there, and none here: AttributeError" in pool.plan.reason


def odd(item: int) -> int:
    STARTS.append(item)
    time.sleep(0.003)
    if item > 40:
        if threading.current_thread() is threading.main_thread():
            FAILED_HERE.append(item)
        raise KeyError(item)
    return item


def test_failures_of_the_items_own_do_not_shut_a_way() -> None:
    """Where one fails here, too: so there are items until that has happened."""
    STARTS.clear()
    FAILED_HERE.clear()

    def items() -> Iterator[int]:
        for item in range(30_000):
            if item >= 600 and FAILED_HERE:
                return
            yield item

    with ts.Pool(allow=("serial", "thread")) as pool:
        results = list(pool.imap(odd, items(), on_error="return"))
        assert [isinstance(each, KeyError) for each in results] == [
            item > 40 for item in range(len(results))
        ]
        assert sorted(STARTS) == list(range(len(results)))
        assert FAILED_HERE
        assert {each.note for each in pool.plan.candidates if each.backend == "thread"} == {""}
