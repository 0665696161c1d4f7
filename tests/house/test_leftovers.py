# SPDX-License-Identifier: BSD-3-Clause
"""What the tests themselves look for: what this program has left, and nothing of others."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.leftovers import find_traces

# Starts a program that goes on when this one has ended, and makes a file
OTHER = """
import subprocess, sys
made = "import sys; open(sys.argv[1], 'w').close(); print(flush=True); sys.stdin.read()"
subprocess.Popen([sys.executable, "-c", made, sys.argv[1]])
"""


@pytest.mark.parametrize("private", [True, False])
def test_ones_own_are_found(private: bool) -> None:
    before = find_traces({}, private)
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="left by me")
    thread.start()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    memory = Path(f"/dev/shm/of-this-{os.getpid()}")
    try:
        with memory.open("w"):
            found = find_traces(before.processes, private).since(before)
    finally:
        memory.unlink()
        child.communicate(b"")
        stop.set()
        thread.join()
    assert any("left by me" in each for each in found)
    assert any(f"process {child.pid}" in each for each in found)
    assert any(str(memory) in each for each in found)


def test_what_others_have_is_not() -> None:
    """A file in /dev/shm, and a process, that this program has nothing to do with."""
    before = find_traces({}, private=False)
    name = f"/dev/shm/of-another-{os.getpid()}"
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert other.wait(20) == 0
        assert other.stdout is not None
        other.stdout.readline()  # it has made the file, and goes on
        assert os.path.exists(name)
        found = find_traces(before.processes, private=False).since(before)
    finally:
        other.communicate(b"")
        with contextlib.suppress(OSError):
            os.unlink(name)
    assert found == []
