# SPDX-License-Identifier: BSD-3-Clause
"""`backend="auto"`: what the code of a function says before others get its items."""

import contextlib
import functools
import io
import reprlib
import sqlite3
import time
from collections.abc import Callable
from typing import Any

import pytest

import teamster as ts
from teamster.spine.workers.job import CallOptions
from teamster.tasks.arguments import MapCall
from teamster.tasks.auto.import_check import ImportCheck
from teamster.tasks.progress import Bar
from teamster.tasks.source import Source


def burn(steps: int) -> int:
    return sum(step * step for step in range(steps))


def test_what_is_done_to_few_items_is_done_here() -> None:
    rare: list[int] = []

    def note(item: int) -> None:
        burn(20_000)
        if item > 390:
            rare.append(item)

    with ts.Pool(allow=("serial", "process")) as pool:
        pool.map(note, range(400))
        assert "it changes `rare`" in pool.plan.reason
    assert rare == [*range(391, 400)]


def test_an_argument_that_is_changed_now_and_then_is_changed_here() -> None:
    def mend(item: list[int]) -> None:
        burn(20_000)
        if item[0] > 390:
            item.append(0)

    items = [[number] for number in range(400)]
    with ts.Pool(allow=("serial", "process")) as pool:
        pool.map(mend, items)
        assert "it changes its argument" in pool.plan.reason
    assert sum(map(len, items)) == 409


def test_what_sets_something_for_all_threads_is_not_run_in_them() -> None:
    def capture(item: int) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as stream:
            print(item)
            time.sleep(0.004)
        return stream.getvalue()

    with ts.Pool() as pool:
        assert pool.map(capture, range(100)) == [f"{item}\n" for item in range(100)]
        assert pool.plan.backend != "thread"


@pytest.mark.parametrize("cached", [False, True])
def test_what_the_first_call_opens_belongs_to_its_thread(cached: bool) -> None:
    opened: list[sqlite3.Connection] = []

    def open_once() -> sqlite3.Connection:
        if cached or not opened:
            opened.append(sqlite3.connect(":memory:"))
        return opened[0]

    get = functools.lru_cache(open_once) if cached else open_once

    def insert(item: int) -> int:
        time.sleep(0.003)
        return int(get().execute("select ?", (item,)).fetchone()[0])

    try:
        assert ts.map(insert, range(60)) == [*range(60)]
    finally:
        for each in opened:
            each.close()


@functools.cache
def remembered(item: int) -> int:
    return item * item


def import_check_of(function: Callable[[int], int]) -> ImportCheck:
    source, terms = Source((range(3),)), CallOptions(0, None, None)
    return ImportCheck(
        MapCall(
            function,
            "call",
            None,
            source,
            terms,
            Bar(False, 3),
            raise_errors=True,
            ordered=True,
            lazy=False,
        )
    )


def test_what_is_remembered_and_asked_for_again_stays_where_it_is_known() -> None:
    remembered.cache_clear()
    import_check = import_check_of(lambda item: burn(item) + remembered(item % 30))
    assert import_check.objection("process", 1.0) == ""
    for item in range(50):
        remembered(item % 30)
    assert import_check.objection("process", 1.0).startswith(
        "`remembered` remembers its results, 20 of them were asked for again"
    )
    assert import_check.objection("thread", 1.0) == ""


def test_what_is_remembered_once_is_no_objection() -> None:
    """A table that is read, a model that is loaded."""
    remembered.cache_clear()
    for _ in range(50):
        remembered(0)
    assert import_check_of(lambda item: burn(item) + remembered(0)).objection("process", 1.0) == ""


def test_a_table_of_a_library_that_the_program_has_filled_keeps_the_function_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reprlib.aRepr, "maxlist", 2)

    def show(item: int) -> str:
        burn(60_000)
        return reprlib.repr([item] * 5)

    deadline = time.monotonic() + 60
    with ts.Pool(allow=("serial", "process")) as pool:
        reason = ""
        while "reprlib.repr.__self__" not in reason:  # workers may take longer to come than a call
            assert time.monotonic() < deadline, reason
            assert pool.map(show, range(300)) == [f"[{item}, {item}, ...]" for item in range(300)]
            reason = pool.plan.reason
        assert pool.report().items % 300 == 0


class LoadsBadly:
    def __reduce__(self) -> Any:
        return (fail_to_load, ())


def fail_to_load() -> None:
    raise ConnectionError("only there where it was made")


def burn_beside(_: object, item: int) -> int:
    return burn(item)


def test_a_function_that_no_worker_can_load_stays_and_the_plan_says_so() -> None:
    with ts.Pool("auto", workers=2) as pool:
        function = functools.partial(burn_beside, LoadsBadly())
        assert pool.map(function, [20_000] * 400) == [burn(20_000)] * 400
        told = str(pool.plan)
    assert "a worker cannot load it: ConnectionError: only there where it was made" in told
    assert "one of the arguments" not in told
