# SPDX-License-Identifier: BSD-3-Clause
"""Shared memory belongs to the program and its workers together.

The end of a worker unlinks nothing, that of the program all.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import RunScript, WaitUntil

ATTACHED = """
import sys
from multiprocessing import shared_memory
import teamster as ts

def attach(name):
    memory = shared_memory.SharedMemory(name)
    memory.close()

with ts.Pool("process", workers=2, start_method=sys.argv[1], max_tasks_per_worker=3) as early:
    early.map(abs, range(4))
    memory = shared_memory.SharedMemory(create=True, size=100)
    early.map(attach, [memory.name] * 20)
    for _ in range(2):
        ts.map(attach, [memory.name] * 6, backend="process", workers=2, start_method=sys.argv[1])
shared_memory.SharedMemory(memory.name).close()
memory.close()
memory.unlink()
"""
MADE = """
import sys
import teamster as ts

def make(n):
    from multiprocessing import shared_memory
    memory = shared_memory.SharedMemory(create=True, size=100)
    memory.close()
    return memory.name

names = ts.map(make, range(6), backend="process", workers=2, start_method=sys.argv[1])
if sys.argv[2] == "keep":
    print(*names)
    raise SystemExit
from multiprocessing import shared_memory
for name in names:
    memory = shared_memory.SharedMemory(name)
    memory.close()
    memory.unlink()
"""


@pytest.mark.parametrize("start_method", ["forkserver", "spawn", "fork"])
def test_what_workers_attach_outlives_them(run_script: RunScript, start_method: str) -> None:
    script = run_script(ATTACHED, start_method, timeout=60)
    assert (script.returncode, script.stderr) == (0, "")


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_what_workers_make_is_the_programs(run_script: RunScript, start_method: str) -> None:
    script = run_script(MADE, start_method, "unlink")
    assert (script.returncode, script.stderr) == (0, "")


def test_what_nobody_unlinks_goes_with_the_program(
    run_script: RunScript, wait_until: WaitUntil
) -> None:
    script = run_script(MADE, "forkserver", "keep")
    names = script.stdout.split()
    assert len(names) == 6
    wait_until(lambda: not any(Path("/dev/shm", name).exists() for name in names), 10)
    wait_until(lambda: not script.survivors(), 10)
    assert os.getpid() != script.pid
