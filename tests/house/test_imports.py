# SPDX-License-Identifier: BSD-3-Clause
"""`import teamster` loads next to nothing and does nothing.

Modules are compared, not milliseconds.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"

# What the package may load besides itself: all of it is cheap, and most of it is in the interpreter
# already.
ALLOWED = {
    "__future__",
    "importlib",
    "importlib._bootstrap",
    "importlib._bootstrap_external",
    "warnings",
}

# -I -S: no site-packages and nothing from the environment, so that a module which other
# installations load at start-up does not hide one that we load; it also shows that the import needs
# no dependency.
PROGRAM = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
handlers = lambda: {int(number): str(signal.getsignal(number)) for number in signal.valid_signals()}
state = lambda: [
    dict(os.environ), handlers(), str(sys.excepthook), str(sys.stdout), os.listdir("/dev/fd"),
    sys.warnoptions, sys.path,
]
modules, before = set(sys.modules), state()
import teamster
after, loaded = state(), sorted(set(sys.modules) - modules)
import json, threading
folder = "/proc/self/task"
tasks = len(os.listdir(folder)) if os.path.isdir(folder) else threading.active_count()
changed = [pair for pair in zip(before, after) if pair[0] != pair[1]]
print(json.dumps({"loaded": loaded, "changed": changed, "threads": tasks}))
"""


@cache
def imported() -> dict[str, object]:
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", PROGRAM, str(SOURCE)],
        env={},  # a variable that is set already would hide that the import sets it
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    answer: dict[str, object] = json.loads(result.stdout)
    return answer


def test_it_loads_nothing_but_itself() -> None:
    loaded = imported()["loaded"]
    assert isinstance(loaded, list)
    assert [
        name for name in loaded if name.partition(".")[0] != "teamster" and name not in ALLOWED
    ] == []


def test_it_loads_no_room() -> None:
    loaded = imported()["loaded"]
    assert isinstance(loaded, list)
    assert {name for name in loaded if name.startswith("teamster")} <= {
        "teamster",
        "teamster.errors",
    }


def test_it_starts_no_thread() -> None:
    assert imported()["threads"] == 1


def test_it_changes_nothing_in_the_process() -> None:
    assert imported()["changed"] == []


def test_using_every_name_loads_no_array_library() -> None:
    program = (
        "import sys, teamster\n"
        "for name in teamster.__all__: getattr(teamster, name)\n"
        "print(*{'numpy', 'torch', 'scipy', 'asyncio', 'joblib'}.intersection(sys.modules))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []


MOST_MODULES = {"": 81, ', backend="thread", workers=2': 76, ', backend="process", workers=2': 102}


@pytest.mark.parametrize("how", MOST_MODULES)
def test_the_first_map_loads_what_it_needs_and_no_more(how: str) -> None:
    program = (
        f"import sys, teamster as ts\nassert ts.map(abs, [1, -2]{how}) == [1, 2]\n"
        "print(sum(name.partition('.')[0] == 'teamster' for name in sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) <= MOST_MODULES[how]
