# SPDX-License-Identifier: BSD-3-Clause
"""Whether a call that raised had done anything before."""

import asyncio
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from teamster.spine.workers.begun import has_begun

CONNECTION = sqlite3.connect(":memory:")
SAVED: list[int] = []


def at_once(item: int) -> Any:
    return CONNECTION.execute("select ?", (item,)).fetchone()


def after_a_nap(item: int) -> Any:
    text = str(item).strip()
    time.sleep(0.001)
    return CONNECTION.execute(text)


def in_a_call(item: int) -> Any:
    return at_once(item)


class Holder:
    def __call__(self, item: int) -> Any:
        return CONNECTION.cursor()


class Client:
    def __init__(self) -> None:
        self.owner = threading.get_ident()

    def get(self, item: int) -> int:
        if threading.get_ident() != self.owner:
            raise RuntimeError(f"used in a thread that is not {self.owner}")
        return item


CLIENT = Client()


def client(item: int) -> int:
    return CLIENT.get(item)


def alarm(item: int) -> None:
    signal.signal(signal.SIGALRM, lambda *_: None)


def loop(item: int) -> Any:
    return asyncio.get_event_loop()


def after_a_save(item: int) -> Any:
    SAVED.append(item)
    return at_once(item)


def in_a_second_round(item: int) -> None:
    for number in range(2):
        if number:
            CONNECTION.cursor()
        SAVED.append(item)


def in_a_file(item: int) -> Any:
    with open(__file__):
        return at_once(item)


def after_an_attribute(item: int) -> Any:
    threading.current_thread().item = item  # type: ignore[attr-defined]
    return at_once(item)


def after_a_function_of_the_users(item: int) -> Any:
    in_a_second_round(-1) if item < 0 else after_a_nap
    Holder()
    return at_once(item)


def raised_by(function: Callable[[int], Any]) -> BaseException:
    raised: list[BaseException] = []

    def run() -> None:
        try:
            function(3)
        except BaseException as error:
            raised.append(error.with_traceback(error.__traceback__ and error.__traceback__.tb_next))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return raised[0]


@pytest.mark.parametrize(
    "function", [at_once, after_a_nap, in_a_call, Holder(), client, alarm, loop]
)
def test_the_first_call_raised(function: Any) -> None:
    assert not has_begun(raised_by(function))


@pytest.mark.parametrize(
    "function",
    [
        after_a_save,
        in_a_second_round,
        in_a_file,
        after_an_attribute,
        after_a_function_of_the_users,
        print and None,
    ],
)
def test_something_had_been_done(function: Any) -> None:
    if function is None:
        assert has_begun(ValueError("without a traceback"))
    else:
        assert has_begun(raised_by(function))
