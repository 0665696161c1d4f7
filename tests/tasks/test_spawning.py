# SPDX-License-Identifier: BSD-3-Clause
"""One process for one call.

Many of these are programs that people have written with `multiprocessing.Process`.
"""

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import pytest

import teamster as ts
from teamster.errors import UsageError
from tests.tasks.targets import fail, me

# --- the call


def test_the_result_comes_home_and_the_process_ends() -> None:
    process = ts.spawn(divmod, 7, 2)
    assert process.result() == (3, 1)
    process.join()
    assert (process.exitcode, process.is_alive()) == (0, False)


def test_keywords_lambdas_and_closures() -> None:
    factor = 3
    assert ts.spawn(lambda x, *, y: (x + y) * factor, 1, y=2).result() == 9


def test_another_process_runs_it() -> None:
    process = ts.spawn(os.getpid)
    assert process.result() == process.pid != os.getpid()


def test_an_error_arrives_as_its_own_type_with_the_traceback_of_the_process() -> None:
    process = ts.spawn(fail)
    with pytest.raises(ValueError, match="no luck") as caught:
        process.result()
    assert "in fail" in str(caught.value.__cause__)
    process.join()
    assert process.exitcode == 1
    assert isinstance(process.exception(), ValueError)


def test_an_error_that_nobody_asks_for_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    process = ts.spawn(fail)
    process.join()
    del process
    gc.collect()
    said = capfd.readouterr().err
    assert "fail failed, and nobody has asked for its result" in said
    assert "ValueError: no luck" in said
    assert "in fail" in said


def test_an_error_that_was_asked_for_is_not_said_again(capfd: pytest.CaptureFixture[str]) -> None:
    process = ts.spawn(fail)
    assert isinstance(process.exception(), ValueError)
    process.join()
    del process
    gc.collect()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("left", "code", "returns"),
    [
        ((), 0, True),
        ((None,), 0, True),
        ((0,), 0, True),
        ((3,), 3, False),
        ((True,), 1, False),
        (("a text",), 1, False),
        ((-1,), 255, False),
    ],
)
def test_sys_exit_means_what_it_means_in_a_program(
    left: tuple[Any, ...], code: int, returns: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """cpython issue 79908: `sys.exit()` left with 1."""
    process = ts.spawn(sys.exit, *left)
    process.join()
    assert process.exitcode == code
    if returns:
        assert process.result() is None
    else:
        with pytest.raises(ts.RemoteError, match="SystemExit"):
            process.result()
    assert capfd.readouterr().err == ("a text\n" if left == ("a text",) else "")


def test_os_exit_is_a_death_with_its_code() -> None:
    process = ts.spawn(os._exit, 7)
    with pytest.raises(
        ts.WorkerDied,
        match=r"the process _exit died before its call was over: it left with exit code 7",
    ) as caught:
        process.result()
    assert (caught.value.exitcode, caught.value.signal) == (7, None)
    process.join()
    assert process.exitcode == 7


def test_a_crash_is_told_with_its_signal() -> None:
    process = ts.spawn(lambda: os.kill(os.getpid(), signal.SIGSEGV))
    with pytest.raises(ts.WorkerDied, match="SIGSEGV") as caught:
        process.result()
    assert caught.value.signal == signal.SIGSEGV
    process.join()
    assert process.exitcode == -signal.SIGSEGV


def test_a_result_that_does_not_pickle() -> None:
    with pytest.raises(ts.TransferError, match="the result of type lock"):
        ts.spawn(threading.Lock).result()


def test_an_argument_that_does_not_pickle_starts_nothing() -> None:
    with pytest.raises(ts.TransferError, match="the argument"):
        ts.spawn(print, threading.Lock())


def test_a_function_that_does_not_pickle_starts_nothing() -> None:
    lock = threading.Lock()

    class Held:
        def __call__(self) -> None:
            lock.acquire()

        def __reduce__(self) -> Any:
            raise RuntimeError("not me")

    with pytest.raises(ts.TransferError, match="the function"):
        ts.spawn(Held())


@pytest.mark.parametrize("target", [None, 3, "print"])
def test_what_cannot_be_called_is_refused(target: Any) -> None:
    with pytest.raises(UsageError, match="the first argument must be a function"):
        ts.spawn(target)


def test_async_functions_are_refused() -> None:
    async def call() -> None:
        pass

    with pytest.raises(UsageError, match="async def"):
        ts.spawn(call)


def test_a_process_is_not_sent_away() -> None:
    process = ts.spawn(time.sleep, 60)
    with pytest.raises(ts.TransferError, match="a process cannot be sent to another process"):
        ts.spawn(print, process)
    process.kill()
    process.join()


def test_a_result_that_was_sent_survives_its_process() -> None:
    """Law 2."""

    def work() -> int:
        import atexit

        atexit.register(time.sleep, 60)
        return 5

    process = ts.spawn(work)
    assert process.result() == 5
    process.kill()
    process.join()
    assert (process.exitcode, process.result()) == (-signal.SIGKILL, 5)


# --- its end


def test_terminate_ends_it() -> None:
    process = ts.spawn(time.sleep, 60)
    process.terminate()
    process.join()
    assert process.exitcode == -signal.SIGTERM


def test_terminate_runs_a_handler_that_was_set() -> None:
    def serve() -> None:
        def stop(number: int, frame: Any) -> None:
            raise SystemExit(5)

        signal.signal(signal.SIGTERM, stop)
        me().send("ready")
        time.sleep(60)

    process = ts.spawn(serve)
    assert process.recv() == "ready"
    process.terminate()
    process.join()
    assert process.exitcode == 5


def test_kill_takes_along_what_it_has_started(wait_until: Callable[..., None]) -> None:
    def start() -> None:
        import subprocess

        me().send(subprocess.Popen(["sleep", "60"]).pid)
        time.sleep(60)

    process = ts.spawn(start)
    grandchild = psutil.Process(process.recv())
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    wait_until(lambda: not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE)


def test_signals_to_one_that_has_ended_do_nothing() -> None:
    process = ts.spawn(int)
    process.join()
    process.terminate()
    process.kill()
    assert process.exitcode == 0


def test_join_and_result_give_up_in_time() -> None:
    process = ts.spawn(time.sleep, 60)
    process.join(0.05)
    assert process.is_alive()
    assert process.exitcode is None
    with pytest.raises(TimeoutError, match="sleep still runs"):
        process.result(0.05)
    process.kill()
    process.join()


def test_a_block_waits_and_an_error_in_it_kills() -> None:
    with ts.spawn(time.sleep, 1) as process:
        assert process.is_alive()
    assert process.exitcode == 0
    with pytest.raises(KeyError), ts.spawn(time.sleep, 60) as process:
        raise KeyError
    assert process.exitcode == -signal.SIGKILL


def test_exit_handlers_and_threads_of_its_own_come_to_their_end() -> None:
    def work() -> None:
        import atexit

        atexit.register(print, "handler")
        threading.Thread(target=lambda: (time.sleep(0.05), print("thread"))).start()

    process = ts.spawn(work)
    process.join()
    assert process.exitcode == 0


def test_what_a_forked_copy_comes_to_is_nobodys_result() -> None:
    def fork() -> str:
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
        return "parent" if pid else "copy"

    assert ts.spawn(fork).result() == "parent"


def test_sigint_is_an_interrupt_as_in_any_python() -> None:
    def work() -> str:
        try:
            me().send("ready")
            time.sleep(60)
        except KeyboardInterrupt:
            return "cleaned up"
        return "late"

    process = ts.spawn(work)
    assert process.recv() == "ready"
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    assert process.result() == "cleaned up"
    process.join()


def test_one_that_closes_its_descriptors_is_ended_and_told_of() -> None:
    def work() -> None:
        os.closerange(3, 256)
        time.sleep(60)

    process = ts.spawn(work)
    with pytest.raises(
        ts.WorkerDied, match="had closed its connection to the program, and was ended"
    ):
        process.result()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def test_what_was_ended_on_purpose_says_by_what() -> None:
    process = ts.spawn(time.sleep, 60)
    process.kill()
    with pytest.raises(ts.WorkerDied, match=r"kill\(\) has ended it"):
        process.result()
    process.join()


def test_an_error_brings_its_arrays() -> None:
    def work() -> None:
        raise ValueError(np.arange(1_000_000))

    error = ts.spawn(work).exception()
    assert isinstance(error, ValueError)
    assert error.args[0].sum() == 499_999_500_000


def test_a_copy_that_the_target_has_forked_has_another_parent() -> None:
    def work() -> tuple[bool, str]:
        kept, (read, write) = me(), os.pipe()
        if (pid := os.fork()) == 0:
            try:
                kept.send(1)
            except UsageError as error:
                os.write(write, f"{ts.parent() is None}|{error}".encode())
            os._exit(0)
        os.waitpid(pid, 0)
        is_none, _, said = os.read(read, 1_000).decode().partition("|")
        return is_none == "True", said

    nobody, said = ts.spawn(work).result()
    assert nobody
    assert "not of this copy" in said
