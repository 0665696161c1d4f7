# SPDX-License-Identifier: BSD-3-Clause
"""The fork server: whose interpreter it is, and what its death costs."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import teamster as ts
from tests.conftest import RunScript

KILLED = """
import os, signal, sys, threading, time
import teamster as ts
from teamster.spine.workers.process.forkserver import the_fork_server

def kill():
    os.kill(the_fork_server().pid, signal.SIGKILL)

def slow(n):
    time.sleep(0.05)
    return n

ts.map(abs, [-1], backend="process", workers=2)
before = len(os.listdir("/proc/self/fd"))
kill()
time.sleep(0.1)
assert ts.map(abs, [-1], backend="process", workers=2) == [1]
assert len(os.listdir("/proc/self/fd")) == before
kill()
threading.Timer(0.6, kill).start()
assert ts.map(slow, range(40), backend="process", workers=2, retries=1) == list(range(40))
"""


def test_a_server_that_is_killed_while_idle_and_its_successor_in_the_middle(
    run_script: RunScript,
) -> None:
    script = run_script(KILLED, timeout=60)
    assert script.returncode == 0, script.stderr


def interpreter(_: object) -> tuple[object, ...]:
    import builtins
    import subprocess

    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return sys.prefix, sys.flags.no_site, hasattr(builtins, "exit"), flags


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_workers_are_the_programs_interpreter(start_method: str) -> None:
    found = ts.map(interpreter, [0], backend="process", workers=1, start_method=start_method)
    assert found == [interpreter(0)]


def test_modules_of_a_pth_file_are_found(tmp_path: Path) -> None:
    """As those of an editable install are, in a virtual environment."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "found_by_pth.py").write_text("def double(n):\n    return 2 * n\n")
    venv.create(tmp_path / "venv", symlinks=True)
    libraries = next((tmp_path / "venv" / "lib").glob("python*/site-packages"))
    (libraries / "editable.pth").write_text(f"{tmp_path / 'package'}\n")
    (tmp_path / "script.py").write_text(
        "import sys, teamster as ts, found_by_pth\n"
        "print(ts.map(found_by_pth.double, [1, 2], backend='process', workers=2))\n"
        "print(ts.map(lambda _: sys.prefix, [0], backend='process', workers=1) == [sys.prefix])"
    )
    done = subprocess.run(
        [tmp_path / "venv" / "bin" / "python", tmp_path / "script.py"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("[2, 4]\nTrue\n", "")


def test_modules_that_a_sitecustomize_finds_are_found(
    run_script: RunScript, tmp_path: Path
) -> None:
    """As those of editable installs that find them by a hook.

    What adds their folder to the path runs when `site` is loaded.
    """
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "found_by_site.py").write_text("def double(n):\n    return 2 * n\n")
    finder = (
        "import importlib.machinery, sys; "
        f"sys.meta_path.append(Finder({str(tmp_path / 'package')!r}))"
    )
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.machinery as m\n"
        "class Finder:\n"
        "    def __init__(self, folder):\n"
        "        self.folder = folder\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        return "
        "m.PathFinder.find_spec(name, [self.folder]) if name == 'found_by_site' else None\n"
        f"{finder}\n"
    )
    text = (
        "import teamster as ts, found_by_site\n"
        "print(ts.map(found_by_site.double, [1, 2], backend='process', workers=2))"
    )
    script = run_script(text, env={"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])})
    assert script.stdout == "[2, 4]\n", script.stderr


UNSEEN = """
import os, signal, sys
import teamster as ts

def collect(*_):
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass

if sys.argv[1] == "blocked":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
else:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN if sys.argv[1] == "ignored" else collect)

def die(n):
    os.kill(os.getpid(), signal.SIGKILL) if n == 2 else None
    return n

options = dict(backend="process", workers=2, on_error="return", start_method=sys.argv[2])
got = ts.map(die, range(4), **options)
assert [got[0], got[1], got[3]] == [0, 1, 3], got
assert got[2].signal == signal.SIGKILL, got[2]
"""


@pytest.mark.parametrize("start_method", ["forkserver", "fork"])
@pytest.mark.parametrize("way", ["blocked", "ignored", "collected"])
def test_an_end_is_seen_whatever_the_program_does_with_its_children(
    run_script: RunScript, way: str, start_method: str
) -> None:
    script = run_script(UNSEEN, way, start_method)
    assert script.returncode == 0, script.stderr
