# SPDX-License-Identifier: BSD-3-Clause
"""Sockets that answer, sockets that do not, and what is not a job at all."""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from teamster.cli.top.jobs import Jobs

if TYPE_CHECKING:
    from tests.conftest import StartScript, WaitUntil, Within

WINDOW = """
import time
from teamster.tasks.monitor.socket import MonitorSocket
MonitorSocket(lambda: {"version": 1, "pid": 1, "command": "job.py", "pools": []}).open()
print("open", flush=True)
time.sleep(60)
"""


class FakeJob:
    """The other side, which answers when the test says so."""

    def __init__(self, folder: str, pid: int) -> None:
        self.path = f"{folder}/{pid}.sock"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        self.connection: socket.socket | None = None

    def answer(self, data: bytes) -> None:
        if self.connection is None:
            self.listener.settimeout(5)
            self.connection, _ = self.listener.accept()
            self.connection.settimeout(5)
        assert self.connection.recv(10) == b"\n"
        self.connection.sendall(data)

    def say(self, **fields: Any) -> None:
        self.answer(json.dumps({"version": 1, "pools": [], **fields}).encode() + b"\n")

    def close(self) -> None:
        for each in (self.connection, self.listener):
            if each is not None:
                each.close()


@pytest.fixture
def folder() -> Iterator[str]:
    path = tempfile.mkdtemp(dir="/tmp")  # short: a socket's path has room for about 100 letters
    yield path
    shutil.rmtree(path)


@pytest.fixture
def job(folder: str) -> Iterator[FakeJob]:
    fake = FakeJob(folder, 41)
    yield fake
    fake.close()


@pytest.fixture
def jobs(folder: str) -> Iterator[Jobs]:
    made = Jobs(folder)
    yield made
    made.close()


def dead_pid() -> int:
    done = subprocess.Popen(["true"])
    done.wait()
    return done.pid


def test_it_asks_and_is_answered(jobs: Jobs, job: FakeJob) -> None:
    (view,) = jobs.look(0)
    assert (view.pid, view.answer, view.quiet, view.problem) == (41, None, True, "")
    job.say(command="train.py")
    (view,) = jobs.look(0)
    assert view.answer is not None
    assert (view.answer.command, view.quiet) == ("train.py", False)


def test_it_asks_once_until_it_is_answered(jobs: Jobs, job: FakeJob) -> None:
    for _ in range(3):
        jobs.look(0)
    job.say()
    assert job.connection is not None
    jobs.look(0)
    assert job.connection.recv(10) == b"\n"


def test_rates_come_from_two_answers(jobs: Jobs, job: FakeJob) -> None:
    jobs.look(0)
    for second in range(2):
        job.say(now_ns=second * 1e9, pools=[{"items": 7 * second}])
        (view,) = jobs.look(0)
    assert view.items_per_s == 7.0


def test_a_job_that_ends_is_gone(jobs: Jobs, job: FakeJob) -> None:
    jobs.look(0)
    job.say()
    assert len(jobs.look(0)) == 1
    job.close()
    os.unlink(job.path)
    assert jobs.look(0) == []


def test_a_job_that_ends_in_the_middle_of_its_answer(jobs: Jobs, job: FakeJob) -> None:
    jobs.look(0)
    job.answer(b'{"version": 1, "po')
    assert len(jobs.look(0)) == 1
    job.close()
    assert jobs.look(0) == []


def test_an_answer_in_pieces(jobs: Jobs, job: FakeJob) -> None:
    jobs.look(0)
    job.answer(b'{"version": 1, "command"')
    (view,) = jobs.look(0)
    assert view.answer is None
    assert job.connection is not None
    job.connection.sendall(b': "slow.py"}\n')
    (view,) = jobs.look(0)
    assert view.answer is not None
    assert view.answer.command == "slow.py"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"hello\n", "makes no sense"),
        (b"\x00\xff\n", "makes no sense"),
        (b'{"version": 2}\n', "it speaks version 2; this teamster understands 1"),
        (b'{"version": 1}\n{"version": 1}\n', "does not end"),
    ],
)
def test_nonsense_is_told_and_not_asked_for_again(
    jobs: Jobs, job: FakeJob, data: bytes, problem: str
) -> None:
    jobs.look(0)
    job.answer(data)
    for _ in range(2):
        (view,) = jobs.look(0)
        assert problem in view.problem
    os.unlink(job.path)
    assert jobs.look(0) == []


def test_a_stale_socket_is_removed(jobs: Jobs, folder: str) -> None:
    stale = FakeJob(folder, dead_pid())
    stale.close()
    assert jobs.look(0) == []
    assert os.listdir(folder) == []


def test_a_socket_that_does_not_listen_yet_is_left_alone(jobs: Jobs, folder: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/{os.getpid()}.sock")
        assert jobs.look(0) == []
        listener.listen()
        assert [view.pid for view in jobs.look(0)] == [os.getpid()]


def test_a_job_that_takes_no_more_connections_is_tried_again(jobs: Jobs, folder: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as other:
        listener.bind(f"{folder}/41.sock")
        listener.listen(0)
        other.connect(f"{folder}/41.sock")
        (view,) = jobs.look(0)
        assert view.quiet
        listener.accept()[0].close()
        jobs.look(0)
        listener.settimeout(5)
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(5)
            assert connection.recv(10) == b"\n"


def test_other_files_are_no_jobs(jobs: Jobs, folder: str) -> None:
    for name in ("notes.txt", "x.sock", "12.sock"):
        Path(folder, name).write_text("")
    assert jobs.look(0) == []
    assert len(os.listdir(folder)) == 3


def test_one_process_only(folder: str, job: FakeJob) -> None:
    other = FakeJob(folder, 43)
    both, one = Jobs(folder), Jobs(folder, pid=43)
    assert [view.pid for view in both.look(0)] == [41, 43]
    assert [view.pid for view in one.look(0)] == [43]
    for each in (both, one, other):
        each.close()


def test_a_folder_that_others_can_enter_is_refused(jobs: Jobs, folder: str, job: FakeJob) -> None:
    os.chmod(folder, 0o755)
    assert jobs.look(0) == []
    assert "is not yours alone" in jobs.problem
    os.chmod(folder, 0o700)
    assert len(jobs.look(0)) == 1
    assert jobs.problem == ""


def test_no_folder_is_no_problem(folder: str) -> None:
    jobs = Jobs(f"{folder}/nothing")
    assert jobs.look(0) == []
    assert jobs.problem == ""


def test_a_stopped_program_holds_nobody_up(
    folder: str, start_script: "StartScript", wait_until: "WaitUntil", within: "Within"
) -> None:
    script = start_script(WINDOW, env={"XDG_RUNTIME_DIR": folder})
    wait_until(lambda: script.stdout, 20, "the window is open")
    jobs = Jobs(f"{folder}/teamster")
    wait_until(lambda: [view.answer for view in jobs.look() if view.answer], 20, "it answers")
    os.kill(script.pid, signal.SIGSTOP)
    try:
        jobs.look(0.1)
        wait_until(lambda: jobs.look(0.1)[0].quiet, 5, "it is told that nobody answers")
        with within(1):
            (view,) = jobs.look(5)
        assert view.answer is not None  # what it said last
    finally:
        os.kill(script.pid, signal.SIGCONT)
    wait_until(lambda: not jobs.look(0.1)[0].quiet_s, 5, "it answers again")
    jobs.close()
