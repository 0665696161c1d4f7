# SPDX-License-Identifier: BSD-3-Clause
"""Messages between the program and a process that it has spawned."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import teamster as ts
from tests.tasks.targets import echo, fail, me

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
    """What programs with a `multiprocessing.Queue` hang in.

    The child waits to write, the program for the child.
    """
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
    assert ts.map(lambda _: ts.parent() is None, range(2), backend="process", workers=1) == [
        True,
        True,
    ]


def test_one_thread_sends_and_another_receives_without_an_end() -> None:
    """The sender hung for ever when a pause had written what it waited for."""
    count = 4_000

    with ts.spawn(echo) as process:
        sender = threading.Thread(
            target=lambda: [process.send(b"x" * 30_000) for _ in range(count)]
        )
        sender.start()
        for _ in range(count):
            assert len(process.recv()) == 30_000
        sender.join()
        process.send(None)


def test_many_threads_of_the_process_receive() -> None:
    """One that had found nothing waited with the lock of all."""

    def work() -> None:
        def serve() -> None:
            while (message := me().recv()) is not None:
                me().send(message)

        threads = [threading.Thread(target=serve) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    with ts.spawn(work) as process:
        for number in range(300):
            process.send(number)
            assert process.recv() == number
        for _ in range(3):
            process.send(None)


def test_a_send_that_waits_holds_up_nobody_who_receives(
    tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    def work(sign: Path) -> None:
        sender = threading.Thread(target=lambda: [me().send(bytes(1_000)) for _ in range(5_000)])
        sender.start()
        try:
            me().recv(timeout=0.2)
        except TimeoutError:
            sign.touch()
        me().recv()
        sender.join()

    process = ts.spawn(work, tmp_path / "over")
    # And nobody has received what the other thread sends
    wait_until((tmp_path / "over").exists, seconds=20)
    process.send("go on")
    assert process.result() is None
    process.join()


@pytest.mark.parametrize("way", ["from", "to"])
def test_large_messages_that_nobody_receives_are_bounded_in_bytes(
    way: str, wait_until: Callable[..., None]
) -> None:
    """Law 5: what travels by shared memory took no room in the socket that was to bound it."""

    def work(counter: str) -> None:
        for number in range(1_000):
            me().send(np.zeros(1 << 17))
            with open(counter, "w") as file:
                file.write(str(number))

    import tempfile

    with tempfile.NamedTemporaryFile("r") as counter:
        process = ts.spawn(work, counter.name) if way == "from" else ts.spawn(time.sleep, 60)
        sent: list[int] = []

        def send() -> None:
            with contextlib.suppress(BrokenPipeError):
                for number in range(1_000):
                    process.send(np.zeros(1 << 17))
                    sent.append(number)

        sender = threading.Thread(target=send)
        if way == "to":
            sender.start()

        def count() -> int:
            return len(sent) if way == "to" else int(Path(counter.name).read_text() or 0)

        wait_until(lambda: count() >= 14)
        time.sleep(0.3)  # nothing more is to come
        assert count() < 64
        process.kill()
        process.join()
        if way == "to":
            sender.join()


def test_each_large_message_is_acknowledged_once(wait_until: Callable[..., None]) -> None:
    """Each send of the program told of all that waited again, which lifted the bound of what the
    process sends.
    """

    def work() -> int:
        for _ in range(20):
            me().send(np.zeros(1 << 17))
        while me().recv() is not None:
            pass
        return me()._unread_bytes

    process = ts.spawn(work)
    wait_until(lambda: len(process._call.inbox) >= 10)
    for number in range(20):
        process.send(number)
    for _ in range(20):
        process.recv()
    process.send(None)
    assert process.result() == 0
    process.join()


def test_a_look_that_times_out_lifts_no_bound(wait_until: Callable[..., None]) -> None:
    process = ts.spawn(lambda: [me().send(bytes(10_000)) for _ in range(1_000_000)])
    process.join(0.01)
    with pytest.raises(TimeoutError):
        process.result(0.01)
    wait_until(lambda: len(process._call.inbox) >= 64)
    time.sleep(0.3)  # nothing more is to come
    assert len(process._call.inbox) < 1_000
    process.kill()
    process.join()


def test_messages_of_threads_that_outlive_the_target_are_received() -> None:
    def work() -> None:
        def later() -> None:
            for number in range(5):
                time.sleep(0.02)
                me().send(number)

        threading.Thread(target=later).start()

    process = ts.spawn(work)
    got = []
    with pytest.raises(EOFError):
        while True:
            got.append(process.recv())
    assert got == list(range(5))
    assert not process.is_alive()


def test_a_signal_handler_that_sends_in_the_middle_of_a_send_is_told_so() -> None:
    """It would wait for its own thread, and with that everybody."""
    said: list[str] = []
    with ts.spawn(lambda: sum(1 for _ in iter(me().recv, None))) as process:

        def send(*_: object) -> None:
            try:
                process.send("from the handler")
            except RuntimeError as error:
                said.append(str(error))

        before = signal.signal(signal.SIGALRM, send)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        try:
            deadline = time.monotonic() + 30
            while not said and time.monotonic() < deadline:
                process.send("message")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        process.send(None)
        assert process.result() > 0
    assert said
    assert "a signal handler uses a process in the middle of another use" in said[0]


def test_a_signal_handler_may_end_a_process_at_any_time() -> None:
    process = ts.spawn(lambda: [me().recv() for _ in iter(int, 1)])

    def end(*_: object) -> None:
        process.kill()

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(BrokenPipeError):
            while True:
                process.send("message")
    finally:
        signal.signal(signal.SIGALRM, before)
    process.join()
    assert process.exitcode == -signal.SIGKILL
