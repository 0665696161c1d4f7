# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from teamster.machine.usage import UsageMeter, resident_bytes


def write_process(
    root: Path, pid: int, threads: dict[int, tuple[int, int]], pages: tuple[int, int] = (10, 4)
) -> None:
    for thread, (run, delay) in threads.items():
        folder = root / "proc" / str(pid) / "task" / str(thread)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "schedstat").write_text(f"{run} {delay} 1\n")
    (root / "proc" / str(pid) / "statm").write_text(f"100 {pages[0]} {pages[1]} 1 0 5 0\n")


def test_run_time_and_delay_of_all_threads_are_summed(tmp_path: Path) -> None:
    me, other = os.getpid(), 999_999
    write_process(tmp_path, me, {1: (1_000, 10)})
    meter = UsageMeter(str(tmp_path))
    write_process(tmp_path, me, {1: (2_001_000, 1_000_010), 2: (3_000_000, 0)})
    write_process(tmp_path, other, {7: (5_000_000, 2_000_000)})
    usage = meter.read([other])
    # What another did before it was seen first is not counted
    assert usage.processors / usage.delayed == pytest.approx(5.0)
    page = os.sysconf("SC_PAGE_SIZE")
    assert usage.memory_bytes == 10 * page + 6 * page  # what the other shares is counted once
    write_process(tmp_path, other, {7: (8_000_000, 3_000_000), 8: (1_000_000, 1_000_000)})
    again = meter.read([other])
    assert again.processors / again.delayed == pytest.approx(2.0)


def test_who_is_gone_takes_nothing(tmp_path: Path) -> None:
    usage = UsageMeter(str(tmp_path)).read([999_999])
    assert (usage.processors, usage.memory_bytes, usage.throttled) == (0.0, 0, 0.0)


@pytest.mark.parametrize(
    ("line", "before", "after"), [("throttled_usec", 0, 10**12), ("throttled_time", 0, 10**15)]
)
def test_throttling_is_read_from_the_cgroup(
    tmp_path: Path, line: str, before: int, after: int
) -> None:
    folder = tmp_path / "sys" / "fs" / "cgroup"
    folder.mkdir(parents=True)
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text("0::/\n")
    (tmp_path / "proc" / "self" / "mountinfo").write_text(
        "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    )
    (folder / "cpu.stat").write_text(f"usage_usec 5\n{line} {before}\n")
    meter = UsageMeter(str(tmp_path))
    assert meter.read([]).throttled == 0.0
    (folder / "cpu.stat").write_text(f"usage_usec 5\n{line} {after}\n")
    assert meter.read([]).throttled == 1.0


def test_a_real_process_that_computes(wait_until: Any) -> None:
    if not Path("/proc/self/task").exists():
        pytest.skip("this system keeps no account")
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        meter = UsageMeter()
        time.sleep(0.05)
        wait_until(lambda: meter.read([child.pid]).processors > 0.2)
        assert resident_bytes(child.pid) > 1_000_000
    finally:
        child.kill()
        child.wait()
