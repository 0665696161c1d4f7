# SPDX-License-Identifier: BSD-3-Clause
"""Memory limits, room and kills, from trees of cgroup version 1 and 2."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from teamster.machine import memory

GIB = 2**30
MEMINFO = (
    "MemTotal:       16777216 kB\nMemFree:         1048576 kB\nMemAvailable:    8388608 kB\n"
    "Buffers: 1 kB\n"
)
V2 = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
V1 = "34 25 0:31 {top} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"


def tree(root: Path, cgroup: str, mounts: str, files: dict[str, str]) -> str:
    """Write a machine with 16 GiB, 8 of them available; `files` are relative to /sys/fs/cgroup."""
    every = {"proc/meminfo": MEMINFO, "proc/self/cgroup": cgroup, "proc/self/mountinfo": mounts}
    every |= {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in every.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


def test_no_cgroup_leaves_the_physical_memory(tmp_path: Path) -> None:
    root = tree(tmp_path, "", "", {})
    assert memory.memory_limit(root) == (16 * GIB, "physical memory")
    assert memory.available_bytes(root) == 8 * GIB
    assert memory.oom_kills(root) is None


def test_v2_limit(tmp_path: Path) -> None:
    root = tree(tmp_path, "0::/job\n", V2, {"job/memory.max": f"{2 * GIB}\n"})
    assert memory.memory_limit(root) == (2 * GIB, "limit of /job; the machine has 16.0 GiB")


def test_v2_max_sets_no_limit(tmp_path: Path) -> None:
    root = tree(tmp_path, "0::/job\n", V2, {"job/memory.max": "max\n"})
    assert memory.memory_limit(root) == (16 * GIB, "physical memory")


def test_v2_tighter_parent_binds(tmp_path: Path) -> None:
    root = tree(
        tmp_path, "0::/a/b\n", V2, {"a/memory.max": f"{GIB}\n", "a/b/memory.max": f"{4 * GIB}\n"}
    )
    assert memory.memory_limit(root) == (GIB, "limit of /a; the machine has 16.0 GiB")


def test_v2_limit_above_the_machine_is_none(tmp_path: Path) -> None:
    root = tree(tmp_path, "0::/job\n", V2, {"job/memory.max": f"{64 * GIB}\n"})
    assert memory.memory_limit(root) == (16 * GIB, "physical memory")


def test_v1_limit_in_a_container(tmp_path: Path) -> None:
    files = {"memory/memory.limit_in_bytes": f"{3 * GIB}\n"}
    root = tree(tmp_path, "4:memory:/docker/4f1c\n", V1.format(top="/docker/4f1c"), files)
    assert memory.memory_limit(root) == (3 * GIB, "limit of /docker/4f1c; the machine has 16.0 GiB")


def test_v1_unlimited_is_a_huge_number(tmp_path: Path) -> None:
    files = {"memory/a/memory.limit_in_bytes": "9223372036854771712\n"}
    root = tree(tmp_path, "4:memory:/a\n", V1.format(top="/"), files)
    assert memory.memory_limit(root) == (16 * GIB, "physical memory")


@pytest.mark.parametrize("text", ["", "\n", "lots", "-1", "\xff"])
def test_broken_limits_set_none(tmp_path: Path, text: str) -> None:
    root = tree(tmp_path, "0::/job\n", V2, {"job/memory.max": text})
    assert memory.memory_limit(root) == (16 * GIB, "physical memory")


def test_available_is_the_room_below_the_tightest_limit(tmp_path: Path) -> None:
    files = {
        "a/memory.max": f"{4 * GIB}\n",
        "a/memory.current": f"{4 * GIB - 1000}\n",
        "a/memory.stat": "anon 5\ninactive_file 400\nactive_file 70\n",
        "a/b/memory.max": f"{4 * GIB}\n",
        "a/b/memory.current": f"{GIB}\n",
    }
    assert memory.available_bytes(tree(tmp_path, "0::/a/b\n", V2, files)) == 1400


def test_available_of_version_1(tmp_path: Path) -> None:
    files = {
        "memory/memory.limit_in_bytes": f"{2 * GIB}",
        "memory/memory.usage_in_bytes": f"{GIB}",
        "memory/memory.stat": f"cache 1\ntotal_inactive_file {GIB // 4}\n",
    }
    root = tree(tmp_path, "4:memory:/\n", V1.format(top="/"), files)
    assert memory.available_bytes(root) == 2 * GIB - GIB * 3 // 4


def test_available_is_never_negative(tmp_path: Path) -> None:
    files = {"a/memory.max": "1000", "a/memory.current": "5000"}
    assert memory.available_bytes(tree(tmp_path, "0::/a\n", V2, files)) == 0


def test_without_meminfo_the_platform_is_asked(tmp_path: Path) -> None:
    size, source = memory.memory_limit(str(tmp_path))
    assert size == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert source == "physical memory"
    assert 0 < memory.available_bytes(str(tmp_path)) <= size


def test_v2_kills(tmp_path: Path) -> None:
    files = {"a/memory.events": "low 0\nhigh 2\nmax 9\noom 3\noom_kill 2\noom_group_kill 0\n"}
    assert memory.oom_kills(tree(tmp_path, "0::/a\n", V2, files)) == 2


def test_v1_kills(tmp_path: Path) -> None:
    files = {"memory/a/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"}
    assert memory.oom_kills(tree(tmp_path, "4:memory:/a\n", V1.format(top="/"), files)) == 5


def test_kills_of_the_nearest_level_that_counts(tmp_path: Path) -> None:
    files = {"a/memory.events": "oom_kill 7\n", "a/b/memory.events": "oom 1\n"}
    assert memory.oom_kills(tree(tmp_path, "0::/a/b\n", V2, files)) == 7


@pytest.mark.parametrize("text", ["", "oom_kill", "oom_kill many\n", "oom_kill_disable 0\n"])
def test_unreadable_kills_are_none(tmp_path: Path, text: str) -> None:
    assert memory.oom_kills(tree(tmp_path, "0::/a\n", V2, {"a/memory.events": text})) is None


def test_shm(tmp_path: Path) -> None:
    assert memory.shm_bytes(str(tmp_path)) == 0
    (tmp_path / "dev/shm").mkdir(parents=True)
    status = os.statvfs(tmp_path)
    assert memory.shm_bytes(str(tmp_path)) == status.f_frsize * status.f_blocks


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_this_machine() -> None:
    size, _ = memory.memory_limit()
    assert 0 < memory.available_bytes() <= size
