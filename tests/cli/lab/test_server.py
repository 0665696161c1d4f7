# SPDX-License-Identifier: BSD-3-Clause
"""The slow server: it answers, late, and never outlives who started it."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from teamster.cli.lab import server
from teamster.cli.lab.server import serve
from teamster.cli.lab.work import download
from teamster.errors import TeamsterError

if TYPE_CHECKING:
    from tests.conftest import Script, StartScript, WaitUntil

HOLDS_A_SERVER = """
import sys, threading
from teamster.cli.lab.server import serve
with serve() as server:
    print(server.pid, flush=True)
    threading.Event().wait()
"""


def server_of(script: Script, wait_until: WaitUntil) -> psutil.Process:
    wait_until(lambda: script.stdout.endswith("\n"), 20)
    return psutil.Process(int(script.stdout))


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_many_are_answered_at_once() -> None:
    sizes: list[int] = []
    with serve() as server:
        threads = [
            threading.Thread(
                target=lambda number=number: sizes.append(
                    download(f"{server.address}/page/{number}")
                )
            )
            for number in range(40)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sizes == [65_536] * 40
    assert not psutil.pid_exists(server.pid)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_its_parent(
    number: int, start_script: StartScript, wait_until: WaitUntil
) -> None:
    script = start_script(HOLDS_A_SERVER)
    server = server_of(script, wait_until)
    script.send_signal(number)
    wait_until(lambda: is_gone(server), 10, "the server is gone")


def test_a_ctrl_c_in_the_terminal_is_not_for_it(
    start_script: StartScript, wait_until: WaitUntil
) -> None:
    script = start_script(HOLDS_A_SERVER)
    server = server_of(script, wait_until)
    script.interrupt()
    script.wait()
    wait_until(lambda: is_gone(server), 10, "the server is gone")
    assert script.stderr.count("KeyboardInterrupt") == 1  # the program's own


def test_a_client_that_leaves_does_no_harm(tmp_path: Path) -> None:
    import socket

    with serve() as server:
        host, _, port = server.address.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as impatient:
            impatient.sendall(b"GET /page/1 HTTP/1.0\r\n\r\n")
        assert download(f"{server.address}/page/2") == 65_536


def test_a_server_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.sys, "executable", "/bin/false")
    with pytest.raises(TeamsterError, match="ended before it began, with code 1"), serve():
        pass
