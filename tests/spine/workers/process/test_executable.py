# SPDX-License-Identifier: BSD-3-Clause
"""Programs whose `sys.executable` is no Python: embedded, frozen, in a folder that is gone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.conftest import RunScript

PROGRAM = """
import sys, time
import teamster as ts
{change}
began = time.monotonic()
try:
    print(ts.map(abs, [-1, -2], workers=2, {options}))
except ts.WorkerStartError as error:
    print(error)
print("seconds", time.monotonic() - began, file=sys.stderr)
"""
ENDS_AT_ONCE = """
import os
from teamster.spine.workers.process.start import Starter
connect = Starter._connect
def connect_too_late(self):
    control = connect(self)
    os.waitid(os.P_PID, self._fork_server.pid, os.WEXITED | os.WNOWAIT)
    return control
Starter._connect = connect_too_late
sys.executable = '/bin/true'
"""
HANGS = "#!/bin/sh\nexec sleep 100\n"


def run(run_script: RunScript, change: str, options: str = "backend='process'") -> str:
    script = run_script(PROGRAM.format(change=change, options=options), timeout=60)
    assert script.returncode == 0, script.stderr
    assert not script.survivors()
    assert float(script.stderr.split("seconds ")[1]) < 30
    return script.stdout


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("sys.executable = None", "sys.executable is None"),
        ("sys.executable = ''", "sys.executable is ''"),
        ("sys.executable = '/no/such/python'", "does not run (No such file or directory)"),
        ("sys.executable = '/bin/false'", "ended with exit code 1"),
        ("sys.executable = '/bin/true'", "ended with exit code 0"),
        (ENDS_AT_ONCE, "ended with exit code 0"),
        ("sys.frozen = True", "this program is frozen"),
    ],
)
def test_one_line_says_why_nothing_can_be_started(
    run_script: RunScript, change: str, reason: str
) -> None:
    for options in ("backend='process'", "backend='process', start_method='spawn'"):
        said = run(run_script, change, options)
        assert said.count("\n") == 1
        assert reason in said
        assert "multiprocessing.set_executable(path)" in said


def test_what_never_answers_is_given_up(run_script: RunScript, tmp_path: Path) -> None:
    waiting = tmp_path / "waits-for-its-user"
    waiting.write_text(HANGS)
    waiting.chmod(0o755)
    assert "was started and does not answer" in run(
        run_script, f"sys.executable = {str(waiting)!r}"
    )


@pytest.mark.parametrize("change", ["sys.executable = None", "sys.frozen = True"])
def test_forks_need_no_interpreter_and_auto_needs_no_processes(
    run_script: RunScript, change: str
) -> None:
    assert run(run_script, change, "backend='process', start_method='fork'") == "[1, 2]\n"
    assert run(run_script, change, "backend='auto'") == "[1, 2]\n"


def test_the_executable_of_multiprocessing_counts(run_script: RunScript) -> None:
    change = (
        "import multiprocessing; sys.executable = '/bin/false'; "
        f"multiprocessing.set_executable({sys.executable!r})"
    )
    assert run(run_script, change) == "[1, 2]\n"
