# SPDX-License-Identifier: BSD-3-Clause
"""Law 7: a start method that would hang is refused, and the default is safe beside threads."""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import teamster as ts


def test_fork_beside_threads_is_refused() -> None:
    """Trap 1."""
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="beside")
    thread.start()
    try:
        with pytest.raises(ts.StartMethodRefused, match=r"other threads run .*beside"):
            ts.map(abs, [1, 2], backend="process", workers=2, start_method="fork")
    finally:
        stop.set()
        thread.join()


def test_fork_after_cuda_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap 3."""
    fake: Any = SimpleNamespace(cuda=SimpleNamespace(is_initialized=lambda: True))
    monkeypatch.setitem(__import__("sys").modules, "torch", fake)
    with pytest.raises(ts.StartMethodRefused, match="CUDA"):
        ts.Pool("process", workers=2, start_method="fork")


def test_an_unknown_start_method() -> None:
    with pytest.raises(ts.UsageError, match="start_method must be one of"):
        ts.Pool("process", start_method="clone")  # type: ignore[arg-type]


@contextlib.contextmanager
def a_lock_that_is_mostly_held() -> Iterator[None]:
    stop = threading.Event()
    handler = logging.StreamHandler()

    def hold() -> None:
        while not stop.is_set():
            with handler.lock:  # type: ignore[union-attr]
                stop.wait(0.001)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def log(number: int) -> int:
    logging.getLogger("quiet").debug("x")
    return number


def test_pools_start_while_a_lock_is_held() -> None:
    """Trap 1: a forked copy of this process could never log again."""
    with a_lock_that_is_mostly_held():
        for _ in range(10):
            assert ts.map(log, range(4), backend="process", workers=2) == [0, 1, 2, 3]


def test_processes_are_spawned_while_a_lock_is_held() -> None:
    with a_lock_that_is_mostly_held():
        for number in range(10):
            process = ts.spawn(log, number)
            assert process.result() == number
            process.join()


@pytest.mark.parametrize("method", ["forkserver", "spawn", "fork"])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_native_threads_have_run_in_the_parent(
    library: str, method: str, run_script: Callable[..., Any]
) -> None:
    """Trap 2: a forked copy of a process in which OpenMP threads ran would hang in its first
    parallel region.
    """
    pytest.importorskip(library)
    script = run_script(
        f"import {library} as lib, sys, teamster as ts\n"
        "def work(n):\n"
        "    one = lib.ones((300, 300))\n"
        "    return float((one @ one).sum()) + n\n"
        "before = work(0)\n"
        "try:\n"
        f"    with ts.Pool('process', workers=2, start_method={method!r}) as pool:\n"
        "        print(pool.map(work, range(20)) == [before + n for n in range(20)])\n"
        "except ts.StartMethodRefused as refusal:\n"
        "    print('refused' if 'OpenMP' in str(refusal) else refusal)\n"
    )
    assert (script.stderr, script.returncode) == ("", 0)
    assert script.stdout in (("True\n", "refused\n") if method == "fork" else ("True\n",))
