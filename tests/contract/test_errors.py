# SPDX-License-Identifier: BSD-3-Clause
"""What a task raises, and what does not pickle: one item, its own type, the worker's traceback."""

import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

import teamster as ts


class TwoArguments(Exception):
    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")
        self.second = second


class KeywordOnly(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__("keyword only")
        self.code = code


class Locked(Exception):
    """It cannot travel whole."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.lock = threading.Lock()


class Junk(Exception):
    def __reduce__(self) -> Any:
        return (int, ("junk",))


@dataclass(frozen=True)
class Frozen(Exception):
    what: str


class NoAttributes(Exception):
    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)


class BadProperty(Exception):
    @property
    def index(self) -> int:
        raise RuntimeError("nobody may know")


class OwnIndex(Exception):
    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.index = -1


def raise_at_three(kind: type[Exception], number: int) -> int:
    if number == 3:
        raise kind("three")
    return number


def divide(number: int) -> float:
    return number / 0


def fail_at_seven(number: int) -> int:
    if number == 7:
        raise LookupError("seven")
    return number


def test_the_first_error_is_raised_with_its_traceback(pool: ts.Pool) -> None:
    with pytest.raises(LookupError, match="seven") as caught:
        pool.map(fail_at_seven, range(20))
    assert "fail_at_seven" in "".join(traceback.format_exception(caught.value))


def test_or_it_takes_the_items_place(pool: ts.Pool) -> None:
    results = pool.map(fail_at_seven, range(20), on_error="return")
    assert isinstance(results[7], LookupError)
    assert [result for result in results if result is not results[7]] == [
        n for n in range(20) if n != 7
    ]


@pytest.mark.parametrize("kind", [Frozen, NoAttributes, BadProperty])
def test_an_error_that_refuses_attributes_costs_its_own_item(
    pool: ts.Pool, kind: type[Exception]
) -> None:
    results = pool.map(partial(raise_at_three, kind), range(6), on_error="return")
    assert isinstance(results[3], kind)
    assert [*results[:3], *results[4:]] == [0, 1, 2, 4, 5]
    with pytest.raises(kind):
        pool.submit(raise_at_three, kind, 3).result(timeout=20)
    with pytest.raises(kind):
        pool.map(partial(raise_at_three, kind), range(6))


@pytest.mark.parametrize("kind", [Frozen, NoAttributes, BadProperty])
def test_an_initializer_that_raises_such_an_error(
    backend: str, kind: type[Exception], within: Callable[..., Any]
) -> None:
    with (
        within(10),
        ts.Pool(backend, workers=2, initializer=raise_at_three, initargs=(kind, 3)) as pool,  # type: ignore[arg-type]
        pytest.raises(kind),
    ):
        pool.map(abs, range(10))


def test_an_index_of_the_errors_own_stays(pool: ts.Pool) -> None:
    with pytest.raises(OwnIndex) as caught:
        pool.map(partial(raise_at_three, OwnIndex), range(6))
    assert caught.value.index == -1
    with pytest.raises(OwnIndex) as caught:
        pool.submit(raise_at_three, OwnIndex, 3).result(timeout=20)
    assert caught.value.index == -1


def test_each_item_may_fail(pool: ts.Pool) -> None:
    results = pool.map(divide, range(2_000), on_error="return")
    assert {type(result) for result in results} == {ZeroDivisionError}
    assert len(results) == 2_000


def test_a_stream_raises_when_the_items_turn_comes(pool: ts.Pool) -> None:
    seen = []
    with pytest.raises(LookupError, match="seven"):
        for result in pool.imap(fail_at_seven, range(20)):
            seen.append(result)
    assert seen == list(range(7))


def test_an_error_stops_the_handing_out(pool: ts.Pool) -> None:
    pulled = 0

    def count() -> Any:
        nonlocal pulled
        for number in range(10**9):
            pulled += 1
            yield number

    with pytest.raises(LookupError):
        pool.map(fail_at_seven, count())
    assert pulled < 1_000_000  # a few batches, which may be of 65,536 items where they are tiny


@pytest.mark.parametrize(
    "make",
    [
        partial(TwoArguments, 1, 2),
        partial(KeywordOnly, code=4),
        partial(OSError, 2, "no such file"),
        partial(UnicodeDecodeError, "a", b"b", 0, 1, "c"),
    ],
)
def test_exceptions_arrive_as_themselves(pool: ts.Pool, make: Callable[[], Exception]) -> None:
    """Trap 10."""
    error = make()

    def fail(number: int) -> int:
        if number == 2:
            failure = make()
            failure.add_note("a note")
            raise failure
        return number

    results = pool.map(fail, range(5), on_error="return")
    assert type(results[2]) is type(error)
    assert str(results[2]) == str(error)
    assert results[2].__notes__[0] == "a note"
    assert [results[0], results[4]] == [0, 4]


def test_an_exception_that_cannot_be_rebuilt_arrives_as_text(backend: str) -> None:
    """Trap 10."""
    if backend != "process":
        pytest.skip("nothing is rebuilt in one process")

    def fail(number: int) -> int:
        raise Junk("lost")

    with ts.Pool("process", workers=1) as pool:
        result = pool.map(fail, [1], on_error="return")[0]
        assert isinstance(result, (ts.RemoteError, Junk))
        assert "lost" in "".join(traceback.format_exception(result))


def test_a_group_of_errors_comes_with_each_as_well_as_it_can(pool: ts.Pool) -> None:
    def fail(number: int) -> int:
        inner = ExceptionGroup("inner", [Locked("lock"), KeyError(number)])
        raise ExceptionGroup("several", [ValueError(number), TwoArguments(1, 2), inner])

    result: Any = pool.map(fail, [7], on_error="return")[0]
    assert type(result) is ExceptionGroup
    assert result.message == "several"
    assert [type(each) for each in result.exceptions] == [
        ValueError,
        TwoArguments,
        ExceptionGroup,
    ]
    assert result.exceptions[1].second == 2
    assert result.exceptions[2].exceptions[1].args == (7,)
    matching, rest = result.split(Locked)
    assert matching.exceptions[0].exceptions[0].args == ("lock",)
    assert len(rest.exceptions) == 3


def test_a_class_that_only_the_worker_has(backend: str) -> None:
    """Trap 10."""

    def fail(_: int) -> None:
        class Local(Exception):
            pass

        raise Local("local")

    with ts.Pool(backend, workers=1) as pool:  # type: ignore[arg-type]
        result = pool.map(fail, [1], on_error="return")[0]
    assert type(result).__name__ == "Local"


@pytest.mark.parametrize(
    "error", [SystemExit(3), GeneratorExit(), StopIteration(), StopAsyncIteration()]
)
def test_what_steers_a_program_does_not_leave_the_task(pool: ts.Pool, error: BaseException) -> None:
    """Trap 12: neither the end of the program nor of the results."""

    def fail(number: int) -> int:
        if number == 3:
            raise error
        return number

    results = pool.map(fail, range(6), on_error="return")
    assert isinstance(results[3], ts.RemoteError)
    assert type(error).__name__ in str(results[3])
    assert results[:3] + results[4:] == [0, 1, 2, 4, 5]
    assert list(pool.imap(fail, range(6), on_error="return"))[4:] == [4, 5]


def test_sys_exit_fails_one_item(pool: ts.Pool) -> None:
    results = pool.map(lambda n: sys.exit(n) if n == 1 else n, range(4), on_error="return")
    assert isinstance(results[1], ts.RemoteError)
    assert [results[0], results[2], results[3]] == [0, 2, 3]


class LoadsBadly:
    def __reduce__(self) -> Any:
        return (fail_to_load, ())


def fail_to_load() -> None:
    raise LookupError("does not load")


class DumpsBadly:
    def __reduce__(self) -> Any:
        raise SystemExit("does not dump")


def deep() -> list[Any]:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    return nested


@pytest.mark.parametrize("make", [threading.Lock, DumpsBadly, deep, LoadsBadly])
@pytest.mark.parametrize("chunksize", [1, 5])
def test_a_result_that_does_not_travel_costs_itself(make: Any, chunksize: int) -> None:
    """Traps 9 and 11."""
    with ts.Pool("process", workers=2) as pool:
        results = pool.map(
            lambda n: make() if n == 7 else n, range(20), on_error="return", chunksize=chunksize
        )
        assert isinstance(results[7], ts.TransferError)
        assert results[7].index == 7
        assert results[:7] + results[8:] == [n for n in range(20) if n != 7]
        assert pool.map(abs, range(5)) == list(range(5))


@pytest.mark.parametrize("make", [threading.Lock, DumpsBadly, LoadsBadly])
@pytest.mark.parametrize("chunksize", [1, 5])
def test_an_argument_that_does_not_travel_costs_itself(make: Any, chunksize: int) -> None:
    """Trap 8."""
    items = [make() if n == 7 else n for n in range(20)]
    with ts.Pool("process", workers=2) as pool:
        results = pool.map(lambda n: n, items, on_error="return", chunksize=chunksize)
        assert isinstance(results[7], (ts.TransferError, LookupError))
        assert results[:7] + results[8:] == [n for n in range(20) if n != 7]
        assert pool.map(abs, range(5)) == list(range(5))


def test_a_function_that_does_not_travel_is_refused() -> None:
    lock = threading.Lock()
    with (
        ts.Pool("process", workers=2) as pool,
        pytest.raises(ts.TransferError, match="the function"),
    ):
        pool.map(lambda n: lock, [1])


def test_errors_do_not_share_their_tracebacks(pool: ts.Pool) -> None:
    """Trap 37."""
    results = pool.map(fail_at_seven, [7] * 5, on_error="return")
    assert len({id(result) for result in results}) == 5
