# SPDX-License-Identifier: BSD-3-Clause
"""`backend="interpreter"`: real interpreters where Python has them (3.14), else a stand-in that
only keeps the calls' rules.

The stand-in runs everything in this interpreter, with arguments and results that are bytes; so it
shows what our code makes of the calls, and nothing about isolation.
"""

import contextvars
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import teamster as ts
from teamster.spine.workers.interpreter import worker as interpreter_main
from teamster.spine.workers.interpreter.backend import has_interpreters

NAME: contextvars.ContextVar[str] = contextvars.ContextVar("NAME", default="nobody")
REAL = has_interpreters()
only_real = pytest.mark.skipif(
    not REAL, reason="this Python has no concurrent.interpreters (3.14 and newer have)"
)


class StandIn:
    """An interpreter that is none; each keeps what `interpreter_main` keeps for one."""

    def __init__(self) -> None:
        self._prepared: Any = None
        self.closed = False

    def exec(self, code: str) -> None:
        compile(code, "<interpreter>", "exec")

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        assert not self.closed
        assert function.__module__ == interpreter_main.__name__
        assert all(type(argument) in (bytes, int) for argument in args)
        kept, interpreter_main._prepared = interpreter_main._prepared, self._prepared
        try:
            result = function(*args)
        finally:
            self._prepared, interpreter_main._prepared = interpreter_main._prepared, kept
        assert result is None or type(result) is bytes
        return result

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def interpreters(monkeypatch: pytest.MonkeyPatch) -> None:
    if REAL:
        return
    module = types.ModuleType("concurrent.interpreters")
    module.create = StandIn  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "concurrent.interpreters", module)
    monkeypatch.setattr("concurrent.interpreters", module, raising=False)
    # A stand-in is none
    monkeypatch.setattr(
        "teamster.spine.transport.by_value.originals.become_worker", lambda *, forked: None
    )
    monkeypatch.setattr("teamster.spine.workers.worker_info._of_process", None)


def double(number: int) -> int:
    return 2 * number


def fragile(number: int) -> float:
    return 12 / number


@pytest.mark.skipif(REAL, reason="this Python has interpreters")
def test_without_interpreters_it_says_what_is_needed() -> None:
    with pytest.raises(
        ts.UsageError,
        match=r"needs Python 3\.14 or newer, and this is 3\.\d+; use 'process' instead",
    ):
        ts.Pool("interpreter")


@pytest.mark.usefixtures("interpreters")
class TestOneWorker:
    """One at a time, so that the stand-in serves, too."""

    def test_map(self) -> None:
        with ts.Pool("interpreter", workers=1) as pool:
            assert pool.map(double, range(2_000)) == [2 * n for n in range(2_000)]
            assert pool.map(lambda n: n + 1, range(10)) == list(range(1, 11))
            assert pool.starmap(pow, [(2, 5), (3, 2)]) == [32, 9]
            assert list(pool.imap(double, iter(range(5)))) == [0, 2, 4, 6, 8]
            assert pool.plan.choice == "interpreter(1)"

    def test_errors(self) -> None:
        with ts.Pool("interpreter", workers=1) as pool:
            with pytest.raises(ZeroDivisionError) as caught:
                pool.map(fragile, [3, 0, 4])
            assert "12 / number" in str(caught.value.__cause__)
            results = pool.map(fragile, [3, 0, 4], on_error="return")
            assert [results[0], type(results[1]), results[2]] == [4.0, ZeroDivisionError, 3.0]

    def test_what_does_not_pickle_costs_itself_only(self) -> None:
        with ts.Pool("interpreter", workers=1) as pool:
            arguments = pool.map(type, [1, sys._getframe(), 2], on_error="return", chunksize=3)
            assert [arguments[0], type(arguments[1]), arguments[2]] == [int, ts.TransferError, int]
            results = pool.map(
                lambda n: (x for x in ()) if n == 1 else n, range(3), on_error="return", chunksize=3
            )
            assert [results[0], type(results[1]), results[2]] == [0, ts.TransferError, 2]
            with pytest.raises(ts.TransferError, match="the function"):
                frame = sys._getframe()
                pool.map(lambda n: frame, [1])

    def test_the_callers_context_goes_along(self) -> None:
        token = NAME.set("Ada")
        try:
            assert ts.map(lambda _: NAME.get(), [1], backend="interpreter", workers=1) == ["Ada"]
        finally:
            NAME.reset(token)

    def test_the_initializer(self, tmp_path: Path) -> None:
        with ts.Pool("interpreter", workers=1, initializer=(tmp_path / "here").touch) as pool:
            assert pool.map(abs, [-1]) == [1]
        assert (tmp_path / "here").exists()
        with ts.Pool("interpreter", workers=1, initializer=fragile, initargs=(0,)) as pool:
            with pytest.raises(ZeroDivisionError):
                pool.map(abs, [-1])

    def test_futures(self) -> None:
        with ts.Pool("interpreter", workers=1) as pool:
            assert pool.submit(pow, 2, exp=5).result() == 32

    def test_limits_that_need_processes_are_refused(self) -> None:
        with pytest.raises(ts.UsageError, match="timeout needs backend='process'"):
            ts.Pool("interpreter", timeout=1.0)


@only_real
def test_python_code_runs_in_parallel_and_apart() -> None:
    with ts.Pool("interpreter", workers=2) as pool:
        kinds = pool.map(
            lambda _: (ts.current_worker().kind, ts.current_worker().index),  # type: ignore[union-attr]
            range(200),
        )
    assert set(kinds) == {("interpreter", 0), ("interpreter", 1)}
