# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

import json
import os
import signal
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import teamster as ts
from teamster.spine.transport.rendezvous import check_folder, runtime_folder, runtime_folders
from teamster.tasks.monitor.socket import MonitorSocket


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short path: that of a socket has 108 bytes."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="rt") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


def ask(path: Path, times: int = 1) -> list[dict[str, Any]]:
    with socket.socket(socket.AF_UNIX) as end:
        end.settimeout(10)
        end.connect(str(path))
        with end.makefile("rwb") as stream:
            answers = []
            for _ in range(times):
                stream.write(b"\n")
                stream.flush()
                answers.append(json.loads(stream.readline()))
            return answers


def test_whoever_looks_gets_an_answer_for_each_line(runtime: Path) -> None:
    seen = MonitorSocket(lambda: {"pools": []})
    seen.open()
    try:
        path = runtime / "teamster" / f"{os.getpid()}.sock"
        assert ask(path, 3) == [{"pools": []}] * 3
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    finally:
        seen.close()
    assert not path.exists()


def test_a_folder_that_is_not_ones_own_is_not_used(runtime: Path) -> None:
    (runtime / "teamster").mkdir(mode=0o777)
    (runtime / "teamster").chmod(0o777)
    assert not check_folder(runtime_folder())
    seen = MonitorSocket(dict)
    seen.open()
    seen.close()
    assert list((runtime / "teamster").iterdir()) == []


def test_a_link_in_its_place_is_not_followed(runtime: Path) -> None:
    (runtime / "elsewhere").mkdir(mode=0o700)
    (runtime / "teamster").symlink_to(runtime / "elsewhere")
    assert not check_folder(runtime_folder())


def test_without_a_runtime_folder_there_is_one_in_the_temporary_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    assert runtime_folders()[-1] == f"{tempfile.gettempdir()}/teamster-{os.getuid()}"
    assert runtime_folder() == runtime_folders()[0]


JOB = """
import sys, time, teamster as ts
def nap(n):
    time.sleep(0.05)
    return n
if __name__ == "__main__":
    kind = sys.argv[1]
    print("ready", flush=True)
    if kind == "submit":
        with ts.Pool("process", workers=2) as pool:
            future = pool.submit(time.sleep, 100)
            future.result()
    elif kind == "short":
        print(sum(ts.map(nap, range(4), backend="thread", workers=4)))
    else:
        items = range(80 if kind == "exit" else 4_000)
        print(sum(ts.map(nap, items, backend=None or sys.argv[2], workers=2)))
"""


def sockets(runtime: Path) -> list[Path]:
    return sorted(runtime.glob("teamster/*.sock"))


@pytest.mark.parametrize("backend", ["thread", "process", "serial"])
def test_a_job_of_a_second_can_be_seen_and_leaves_nothing(
    start_script: Any, wait_until: Callable[..., None], runtime: Path, backend: str
) -> None:
    text = JOB.replace(", workers=2)", ")") if backend == "serial" else JOB
    script = start_script(text, "exit", backend, env={"XDG_RUNTIME_DIR": str(runtime)})
    wait_until(lambda: sockets(runtime) or script.returncode is not None, 10)
    (answer,) = ask(sockets(runtime)[0])
    assert answer["pid"] == script.pid
    (pool,) = answer["pools"]
    assert pool["calls"][0]["function"] == "nap"
    assert 0 < pool["calls"][0]["done"] < pool["calls"][0]["total"] == 80

    def is_running() -> bool:  # it may have been between two items
        return any(
            worker["state"] == "running"
            for worker in ask(sockets(runtime)[0])[0]["pools"][0]["workers"]
        )

    wait_until(is_running, 10)
    script.wait()
    assert script.stdout.split() == ["ready", "3160"]
    wait_until(lambda: not sockets(runtime))


@pytest.mark.parametrize(
    ("kind", "number"),
    [("long", signal.SIGKILL), ("long", signal.SIGTERM), ("submit", signal.SIGKILL)],
)
def test_a_job_that_is_killed_leaves_no_socket(
    start_script: Any, wait_until: Callable[..., None], runtime: Path, kind: str, number: int
) -> None:
    script = start_script(JOB, kind, "thread", env={"XDG_RUNTIME_DIR": str(runtime)})
    wait_until(lambda: sockets(runtime), 10)
    script.send_signal(number)
    script.wait()
    wait_until(lambda: not sockets(runtime), 1.0)


def test_ctrl_c_of_the_terminal_does_not_end_the_guard_first(
    start_script: Any, wait_until: Callable[..., None], runtime: Path
) -> None:
    script = start_script(JOB, "long", "thread", env={"XDG_RUNTIME_DIR": str(runtime)})
    wait_until(lambda: sockets(runtime), 10)
    os.killpg(script.pid, signal.SIGKILL)
    script.wait()
    wait_until(lambda: not sockets(runtime), 1.0)


def test_a_short_job_opens_no_window(run_script: Any, runtime: Path) -> None:
    script = run_script(JOB, "short", env={"XDG_RUNTIME_DIR": str(runtime)})
    assert script.stdout.split() == ["ready", "6"]
    assert list(runtime.iterdir()) == []


def test_a_program_that_forks_its_workers_has_no_window(run_script: Any, runtime: Path) -> None:
    text = """
import time, threading, teamster as ts
other = ts.Pool("serial")
other.map(time.sleep, [0.6] * 2)
assert any(thread.name == "teamster-window" for thread in threading.enumerate())
with ts.Pool("process", workers=2, start_method="fork") as pool:
    assert not any(thread.name == "teamster-window" for thread in threading.enumerate())
    print(pool.map(abs, [-1, 2]))
"""
    script = run_script(text, env={"XDG_RUNTIME_DIR": str(runtime)})
    assert script.stdout == "[1, 2]\n", script.stderr


def test_a_task_opens_no_window_of_its_own(monkeypatch: pytest.MonkeyPatch, runtime: Path) -> None:
    def task(_: int) -> bool:

        from teamster.tasks.monitor import socket as window

        window.announce()
        return window._socket is None

    assert ts.map(task, [1], backend="process", workers=1) == [True]
    assert list(runtime.iterdir()) == []
