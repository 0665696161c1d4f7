# SPDX-License-Identifier: BSD-3-Clause
"""Messages between the program and a process that it has spawned."""

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import teamster as ts


def me() -> ts.Parent:
    parent = ts.parent()
    assert parent is not None
    return parent


def echo() -> None:
    while (message := me().recv()) is not None:
        me().send(message)


def fail() -> None:
    raise ValueError("no luck")


# --- messages


def test_messages_go_both_ways_in_order() -> None:
    with ts.spawn(echo) as process:
        for number in range(300):
            process.send(number)
            assert process.recv() == number
        for number in range(30):
            process.send(number)
        assert [process.recv() for _ in range(30)] == list(range(30))
        process.send(None)


def test_arrays_come_back_equal_and_memory_is_used_again() -> None:
    with ts.spawn(echo) as process:
        for number in range(20):
            process.send({"data": np.full(1_000_000, number)})
            assert (process.recv()["data"] == number).all()
        process.send(None)


def test_the_other_side_is_gone() -> None:
    process = ts.spawn(int)
    with pytest.raises(EOFError, match="int has ended"):
        process.recv()
    with pytest.raises(BrokenPipeError, match="int has ended"):
        process.send(1)
    assert process.poll()
    process.join()


def test_the_end_of_file_names_what_has_ended_it() -> None:
    process = ts.spawn(fail)
    with pytest.raises(EOFError) as caught:
        process.recv()
    assert isinstance(caught.value.__cause__, ValueError)
    process.join()


def test_what_was_sent_before_the_end_can_be_received_after_it() -> None:
    process = ts.spawn(lambda: [me().send(number) for number in range(5)])
    process.join()
    assert [process.recv() for _ in range(5)] == list(range(5))
    with pytest.raises(EOFError):
        process.recv()


def test_join_before_all_was_received_does_not_hang() -> None:
    """What programs with a `multiprocessing.Queue` hang in: the child waits to write, the program for the child."""
    process = ts.spawn(lambda: [me().send(bytes(100_000)) for _ in range(1000)])
    process.join()
    assert process.exitcode == 0
    assert sum(len(process.recv()) for _ in range(1000)) == 100_000_000


def test_who_does_not_receive_does_not_fill_the_memory(wait_until: Callable[..., None]) -> None:
    """Law 5."""

    def flood() -> None:
        for number in range(100_000):
            me().send((number, bytes(10_000)))

    process = ts.spawn(flood)
    assert process.recv()[0] == 0
    wait_until(lambda: process._call._inbox_bytes >= 600_000)
    seen = process._call._inbox_bytes
    time.sleep(0.1)  # nothing to wait for: nothing is to happen
    assert process._call._inbox_bytes <= max(seen, 20 << 20)
    assert len(process._call.inbox) <= 200
    assert [process.recv()[0] for _ in range(1000)] == list(range(1, 1001))
    process.kill()
    process.join()


def test_both_sides_send_much_before_they_receive() -> None:
    def talk() -> int:
        for _ in range(50):
            me().send(bytes(1_000_000))
        return sum(len(me().recv()) for _ in range(50))

    with ts.spawn(talk) as process:
        for _ in range(50):
            process.send(bytes(1_000_000))
        assert sum(len(process.recv()) for _ in range(50)) == 50_000_000
        assert process.result() == 50_000_000


def test_a_receiver_that_waits_in_time() -> None:
    def wait() -> tuple[bool, str, Any]:
        empty = me().poll(0.01)
        try:
            me().recv(0.01)
            said = ""
        except TimeoutError as error:
            said = str(error)
        me().send("waiting")
        return empty, said, me().recv()

    process = ts.spawn(wait)
    with pytest.raises(TimeoutError):
        process.recv(0.0)
    assert process.recv() == "waiting"
    assert not process.poll()
    process.send("go on")
    assert process.result() == (False, "no message of the program in 0.01 s", "go on")
    process.join()


def test_threads_of_the_process_send_and_receive_at_once() -> None:
    def talk() -> int:
        got: list[Any] = []

        def receive() -> None:
            while (message := me().recv()) is not None:
                got.append(message)

        thread = threading.Thread(target=receive)
        thread.start()
        for number in range(200):
            me().send(np.full(10_000, number))
        thread.join()
        return len(got)

    with ts.spawn(talk) as process:
        for number in range(200):
            process.send(np.full(10_000, number))
            assert process.recv()[0] == number
        process.send(None)
        assert process.result() == 200


def test_a_message_that_does_not_pickle() -> None:
    with ts.spawn(echo) as process:
        with pytest.raises(ts.TransferError, match="the message"):
            process.send(threading.Lock())
        process.send("still there")
        assert process.recv() == "still there"
        process.send(None)


def test_outside_of_a_spawned_process_there_is_no_parent() -> None:
    assert ts.parent() is None
    assert ts.map(lambda _: ts.parent() is None, range(2), backend="process", workers=1) == [True, True]
