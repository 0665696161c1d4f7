# SPDX-License-Identifier: BSD-3-Clause
"""Law 8: the user's own exception arrives.

An error of ours says what happened, why with evidence, and what to do.
"""

import inspect
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import pytest

import teamster as ts
from teamster import errors

BACKENDS = ["serial", "thread", "process"]


def test_every_error_of_ours_derives_from_one() -> None:
    found = [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if kind.__module__ == errors.__name__
    ]
    assert ts.TeamsterError in found
    assert all(issubclass(kind, ts.TeamsterError) for kind in found)
    assert {kind.__name__ for kind in found} <= set(ts.__all__)


class OrderRefused(Exception):
    """A user's exception with a constructor of its own."""

    def __init__(self, order: int, *, reason: str) -> None:
        super().__init__(f"order {order}: {reason}")
        self.order = order


def refuse(number: int) -> int:
    if number == 3:
        raise OrderRefused(number, reason="no such customer")
    return number


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("call", ["map", "imap", "starmap", "submit"])
def test_the_users_own_exception(backend: Any, call: str) -> None:
    """Trap 10: its type, its attributes, its text, and the line of the task that raised it."""
    with ts.Pool(backend, workers=2) as pool, pytest.raises(OrderRefused) as caught:
        if call == "submit":
            pool.submit(refuse, 3).result()
        else:
            list(
                getattr(pool, call)(
                    refuse, [(n,) for n in range(6)] if call == "starmap" else range(6)
                )
            )
    assert (caught.value.order, str(caught.value)) == (3, "order 3: no such customer")
    assert not isinstance(caught.value, ts.TeamsterError)
    printed = "".join(traceback.format_exception(caught.value))
    assert 'raise OrderRefused(number, reason="no such customer")' in printed
    assert "in refuse" in printed


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_cause_of_the_users_own_is_printed_too(backend: Any) -> None:
    def run(number: int) -> float:
        try:
            return 1 / number
        except ZeroDivisionError as error:
            raise ValueError("no quotient") from error

    with (
        ts.Pool(backend, workers=1) as pool,
        pytest.raises(ValueError, match="no quotient") as caught,
    ):
        pool.map(run, [1, 0])
    printed = "".join(traceback.format_exception(caught.value))
    assert "ZeroDivisionError: division by zero" in printed
    assert "The above exception was the direct cause" in printed


def cut_off(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def leave(number: int) -> int:
    os._exit(number)


class Sealed(Exception):
    """Cannot be made without what it was made with, which does not travel."""

    def __new__(cls, lock: Any) -> "Sealed":
        assert hasattr(lock, "acquire")
        return super().__new__(cls, lock)

    def __reduce__(self) -> Any:
        raise TypeError("no")


def raise_sealed(_: int) -> None:
    raise Sealed(threading.Lock())


ERRORS: dict[str, tuple[Callable[[], Any], type[ts.TeamsterError], str, str, str]] = {
    # what is done: error, what happened, likely cause or evidence, what to do
    "killed": (
        lambda: ts.map(cut_off, [1], backend="process"),
        ts.WorkerDied,
        "worker 0 died while it ran item 0: killed by SIGKILL (signal 9)",
        "out-of-memory killer or from a person; its memory peaked at",
        "retries=1",
    ),
    "left": (
        lambda: ts.map(leave, [7], backend="process"),
        ts.WorkerDied,
        "it left with exit code 7",
        "called os._exit or ended the interpreter",
        "let it return or raise",
    ),
    "started never": (
        lambda: ts.map(abs, [7], backend="process", workers=1, initializer=os._exit, initargs=(4,)),
        ts.WorkerStartError,
        "workers in a row died before they were ready",
        "died while it started: it left with exit code 4",
        "try it with backend='serial'",
    ),
    "too long": (
        lambda: ts.map(time.sleep, [30], backend="process", timeout=0.1),
        ts.TaskTimeout,
        "item 0 ran for more than 0.1 s",
        "in worker 0, which was killed and replaced",
        "raise timeout=",
    ),
    "no pickle": (
        lambda: ts.map(lambda _: threading.Lock(), [1], backend="process"),
        ts.TransferError,
        "the result of type lock cannot be sent between processes",
        "cannot pickle '_thread.lock' object",
        "return or pass plain data instead",
    ),
    "no type": (
        lambda: ts.map(raise_sealed, [1], backend="process"),
        ts.RemoteError,
        "the task raised",
        "cannot be rebuilt in this process",
        "define the class in a module",
    ),
    "no exception": (
        lambda: ts.map(lambda _: (_ for _ in ()).throw(SystemExit(2)), [1], backend="process"),
        ts.RemoteError,
        "the task raised SystemExit(2)",
        "would steer the program",
        "raise an Exception instead",
    ),
    "fork": (
        lambda: ts.map(abs, [1], backend="process", start_method="fork"),
        ts.StartMethodRefused,
        "start_method='fork' while other threads run",
        "a lock that one of them holds would never be released",
        "leave start_method out",
    ),
    "no workers": (
        lambda: ts.map(abs, [1], workers=0),
        ts.UsageError,
        "workers must be at least 1",
        "not 0",
        "leave it out to use every core",
    ),
}


@pytest.mark.parametrize("name", list(ERRORS))
def test_an_error_of_ours_has_three_parts(name: str) -> None:
    do, kind, happened, evidence, remedy = ERRORS[name]
    idle = threading.Event()
    beside = threading.Thread(target=idle.wait)  # fork is refused beside a thread
    beside.start()
    try:
        with pytest.raises(kind) as caught:
            do()
    finally:
        idle.set()
        beside.join()
    text = str(caught.value)
    assert happened in text
    assert evidence in text
    assert remedy in text
    assert len(text.splitlines()) == 1
