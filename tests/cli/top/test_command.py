# SPDX-License-Identifier: BSD-3-Clause
"""``teamster top`` as a user sees it: in a real terminal, beside a real job."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from teamster.cli.top.screen import NO_JOB

if TYPE_CHECKING:
    from tests.conftest import Script, StartScript, WaitUntil

JOB = """
import sys, time
import teamster as ts

def crunch(item):
    time.sleep(0.02)
    return item

with ts.Pool("process", workers=2) as pool:
    pool.map(crunch, range(100_000))
"""
TOP = [sys.executable, "-m", "teamster.cli.main", "top"]
DEADLINE_S = 30.0  # this machine may be busy


@pytest.fixture
def folder() -> Iterator[str]:
    path = tempfile.mkdtemp(dir="/tmp")  # short: a socket's path has room for about 100 letters
    yield path
    shutil.rmtree(path)


@pytest.fixture
def job(folder: str, start_script: StartScript, wait_until: WaitUntil) -> Script:
    script = start_script(JOB, "--name", "x y", env={"XDG_RUNTIME_DIR": folder})
    wait_until(
        Path(folder, "teamster", f"{script.pid}.sock").exists,
        DEADLINE_S,
        "the job can be looked at",
    )
    return script


def places(folder: str) -> dict[str, str]:
    """A variable for each place where sockets of jobs may be.

    Other programs' are not in this one.
    """
    return {"XDG_RUNTIME_DIR": folder, "TMPDIR": folder}


class Screen:
    """A terminal with a shell in it."""

    def __init__(self, folder: str, wait_until: WaitUntil) -> None:
        self._name = f"teamster-{uuid4().hex[:8]}"
        self._wait_until = wait_until
        # Its socket, which tmux leaves behind, goes with the folder.
        self._environment = {
            **os.environ,
            **places(folder),
            "TMUX_TMPDIR": folder,
            "PS1": "$ ",
            "LC_ALL": "C.UTF-8",
        }
        self.tmux("new-session", "-d", "-x", "80", "-y", "24", "bash --norc --noprofile")

    def tmux(self, *arguments: str) -> str:
        command = ["tmux", "-L", self._name, "-f", "/dev/null", *arguments]
        return subprocess.run(
            command, env=self._environment, capture_output=True, text=True, timeout=20, check=True
        ).stdout

    def keys(self, *keys: str) -> None:
        self.tmux("send-keys", *keys)

    def text(self) -> str:
        return self.tmux("capture-pane", "-p")

    def flag(self, name: str) -> str:
        return self.tmux("display-message", "-p", f"#{{{name}}}").strip()

    def await_text(self, pattern: str) -> str:
        """The part of the screen that matches, as soon as one does."""
        found: list[str] = []

        def look() -> bool:
            found[:] = [
                match.group() for match in [re.search(pattern, self.text(), re.MULTILINE)] if match
            ]
            return bool(found)

        self._wait_until(look, DEADLINE_S, f"{pattern!r} on the screen")
        return found[0]

    def await_without(self, pattern: str) -> None:
        self._wait_until(
            lambda: not re.search(pattern, self.text()), DEADLINE_S, f"no {pattern!r} on the screen"
        )

    def start_top(self) -> None:
        self.keys(" ".join(TOP) + "; echo code=$?", "Enter")
        self.await_text("q quit")

    def check_usable(self, code: int) -> None:
        """The shell is back, and so is everything that it needs."""
        self.await_text(rf"^code={code}$")
        assert "q quit" not in self.text()
        assert (self.flag("alternate_on"), self.flag("cursor_flag")) == ("0", "1")
        self.keys(
            "stty -a | tr ' ' '\\n' | grep -xE 'echo|icanon' | sort | xargs; echo back$((1 + 1))",
            "Enter",
        )
        self.await_text(r"^echo icanon$")
        self.await_text(r"^back2$")
        # What is typed shows
        assert "$ stty -a | tr" in self.text() or "# stty -a | tr" in self.text()


@pytest.fixture
def screen(folder: str, wait_until: WaitUntil) -> Iterator[Screen]:
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed, and this looks at a real terminal")
    made = Screen(folder, wait_until)
    server = int(made.flag("pid"))
    yield made
    made.tmux("kill-server")
    wait_until(lambda: not Path(f"/proc/{server}").exists(), DEADLINE_S, "the terminal is gone")


def call(folder: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **places(folder), "COLUMNS": "80"}
    return subprocess.run(
        [*TOP, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_job_in_a_terminal(screen: Screen, job: Script, folder: str) -> None:
    screen.start_top()
    screen.await_text(rf"▶ +{job.pid} .* script.py --name x y$")
    screen.await_text(r"crunch +[━╸╺]+ +[\d,]+/100,000 +\d+% +[\d.]+/s")
    screen.await_text(r"process\(2\)")
    screen.await_text(r"process 0 +\d+ +running +#[\d,]+")
    screen.await_text(r"process 1 +\d+ +running +#[\d,]+")
    screen.keys("w")
    screen.await_without("WORKER")
    screen.keys("w", "p")
    screen.await_text("PAUSED")
    screen.await_text("p go on")
    counts = [screen.await_text(r"[\d,]+/100,000")]
    screen.keys("?")
    screen.await_text("show or hide the table of workers")
    screen.keys("?")
    counts.append(screen.await_text(r"[\d,]+/100,000"))
    assert counts[0] == counts[1]
    screen.keys("Space")
    screen.await_without(f"PAUSED|{counts[0]}")
    os.kill(job.pid, signal.SIGKILL)
    screen.await_text(NO_JOB)
    assert os.listdir(f"{folder}/teamster") == []
    screen.keys("q")
    screen.check_usable(0)


def test_two_jobs_in_a_terminal_of_any_size(
    screen: Screen, job: Script, folder: str, start_script: StartScript
) -> None:
    other = start_script(JOB, env={"XDG_RUNTIME_DIR": folder})
    screen.start_top()
    screen.await_text(f" {other.pid} ")
    low, high = sorted([job.pid, other.pid])
    screen.keys("Up")
    screen.await_text(f"▶ +{low} ")
    screen.keys("Down")
    screen.await_text(f"▶ +{high} ")
    screen.tmux("resize-window", "-x", "40", "-y", "20")
    screen.await_text(r"^process 1 +\w+ +(#[\d,]+ +)?[\d.]+ s$|^process 1 +idle$")
    assert "MEMORY" not in screen.text()
    screen.tmux("resize-window", "-x", "200", "-y", "60")
    screen.await_text(r"RUNS")
    os.kill(job.pid, signal.SIGSTOP)
    screen.await_text("not answering")
    os.kill(job.pid, signal.SIGCONT)
    screen.await_without("not answering")
    screen.keys("C-c")
    screen.check_usable(130)


def test_a_page_that_is_ended_from_outside(screen: Screen, folder: str) -> None:
    screen.start_top()
    screen.await_text(NO_JOB)
    screen.keys("C-z")
    screen.await_text("Stopped")
    assert (screen.flag("alternate_on"), screen.flag("cursor_flag")) == ("0", "1")
    screen.keys("fg; echo code=$?", "Enter")
    screen.await_text(NO_JOB)
    os.kill(int(subprocess.check_output(["pgrep", "-P", screen.flag("pane_pid")])), signal.SIGTERM)
    screen.check_usable(143)


def test_once(folder: str, job: Script) -> None:
    done = call(folder, "--once", "--interval", "0.2")
    assert (done.stderr, done.returncode) == ("", 0)
    assert "\x1b" not in done.stdout
    for part in (
        f" {job.pid} ",
        "script.py --name x y",
        "process(2)",
        "crunch",
        "/100,000",
        "process 1",
    ):
        assert part in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_a_pipe_is_no_terminal(folder: str, job: Script) -> None:
    done = call(folder, "--interval", "0.1", "--pid", str(job.pid))
    assert (done.stderr, done.returncode) == ("", 0)
    assert "process(2)" in done.stdout


def test_json(folder: str, job: Script) -> None:
    done = call(folder, "--json", "--interval", "0.3")
    assert (done.stderr, done.returncode) == ("", 0)
    facts: dict[str, Any] = json.loads(done.stdout)
    (seen,) = facts["jobs"]
    assert (seen["pid"], seen["problem"]) == (job.pid, "")
    assert seen["answer"]["pools"][0]["calls"][0]["total"] == 100_000
    (pool,) = seen["rates"]
    assert pool["title"] == "process(2)"
    assert pool["calls"][0]["function"] == "crunch"
    assert 0 <= pool["in_use"] <= 1
    assert pool["items_per_s"] > 0


def test_ascii_is_enough(folder: str, job: Script) -> None:
    environment = {**os.environ, **places(folder), "PYTHONIOENCODING": "ascii", "COLUMNS": "80"}
    done = subprocess.run(
        [*TOP, "--once"], env=environment, capture_output=True, timeout=60, check=False
    )
    assert (done.stderr, done.returncode) == (b"", 0)
    assert "in use #" in done.stdout.decode("ascii")


def test_nobody(folder: str) -> None:
    assert call(folder, "--once").stdout == f"{NO_JOB}\n"
    assert json.loads(call(folder, "--json").stdout) == {"jobs": []}
    assert (
        "process 1 is no job that can be looked at" in call(folder, "--once", "--pid", "1").stdout
    )


def test_a_folder_of_others_is_refused(folder: str) -> None:
    Path(folder, "teamster").mkdir(mode=0o755)
    done = call(folder, "--once")
    assert done.returncode == 0
    assert "is not yours alone" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--interval", "0"], "--interval must be at least 0.05 seconds, not 0"),
        (["--interval", "nan"], "--interval must be at least 0.05 seconds, not nan"),
        (["--interval", "inf"], "--interval must be at least 0.05 seconds, not inf"),
        (["--pid", "-3"], "--pid must be the number of a process, not -3"),
        (["--pid", "x"], "invalid int value"),
        (["--speed"], "there is no option --speed"),
    ],
)
def test_bad_options_are_one_line(folder: str, arguments: list[str], message: str) -> None:
    done = call(folder, *arguments)
    assert (done.stdout, done.returncode) == ("", 2)
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
