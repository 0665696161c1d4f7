# SPDX-License-Identifier: BSD-3-Clause
"""What a worker has freed, it uses again."""

from __future__ import annotations

import os
import platform
import resource
from pathlib import Path
from typing import Any

import pytest

import teamster as ts
from tests.conftest import RunScript

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries have no such threshold"
)
BLOCK_BYTES = 3 << 20


def faults(_: int) -> int:
    """Page faults of an item that makes and drops some megabytes, two blocks at a time."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        one, other = bytes(BLOCK_BYTES), bytes(BLOCK_BYTES)
        del one, other
        bytearray(b"x") * BLOCK_BYTES  # written, and not only asked for
        bytearray(b"y") * BLOCK_BYTES
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_pages_of_freed_blocks_are_not_given_back(start_method: Any) -> None:
    with ts.Pool("process", workers=1, start_method=start_method) as pool:
        counts = pool.map(faults, range(4), chunksize=1)
    assert max(counts[1:]) < BLOCK_BYTES // os.sysconf("SC_PAGESIZE")  # of 20 such blocks each


PROGRAM = """
import sys
import teamster as ts
from tests.spine.workers.process.test_allocator import faults

with ts.Pool("process", workers=1) as pool:
    print(min(pool.map(faults, range(3), chunksize=1)))
"""


def test_what_the_user_has_set_is_not_changed(run_script: RunScript) -> None:
    root = str(Path(__file__).parents[4])
    result = run_script(PROGRAM, env={"MALLOC_MMAP_THRESHOLD_": "65536", "PYTHONPATH": root})
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 10 * BLOCK_BYTES // os.sysconf("SC_PAGESIZE")
