# SPDX-License-Identifier: BSD-3-Clause
"""CPU budget and cores (trap 33), read from copies of the trees that real machines and containers
show.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from teamster.machine import cpus
from tests.machine.cgroup_trees import EIGHT, V1_MOUNT, V2_MOUNT, v1, v2, write


def limit(root: str, affinity: range | list[int] = EIGHT, **environ: str) -> tuple[float, str]:
    return cpus.cpu_limit(root, affinity=affinity, environ=environ)


# Version 2


def test_no_files_at_all_leaves_the_affinity_mask(tmp_path: Path) -> None:
    assert limit(str(tmp_path)) == (8.0, "affinity mask")


def test_v2_quota_of_the_own_cgroup(tmp_path: Path) -> None:
    root = v2(
        tmp_path,
        "/system.slice/job.service",
        {"system.slice/job.service/cpu.max": "150000 100000\n"},
    )
    assert limit(root) == (1.5, "quota of /system.slice/job.service; affinity allows 8")


def test_v2_max_sets_no_limit(tmp_path: Path) -> None:
    root = v2(tmp_path, "/a", {"a/cpu.max": "max 100000\n"})
    assert limit(root) == (8.0, "affinity mask")


def test_v2_tighter_parent_binds(tmp_path: Path) -> None:
    root = v2(
        tmp_path,
        "/slice/middle/job",
        {
            "slice/cpu.max": "50000 100000\n",
            "slice/middle/cpu.max": "400000 100000\n",
            "slice/middle/job/cpu.max": "200000 100000\n",
        },
    )
    assert limit(root) == (0.5, "quota of /slice; affinity allows 8")


def test_v2_tighter_child_binds(tmp_path: Path) -> None:
    root = v2(tmp_path, "/a/b", {"a/cpu.max": "400000 100000", "a/b/cpu.max": "max 100000"})
    assert limit(root) == (4.0, "quota of /a; affinity allows 8")


@pytest.mark.parametrize(
    "text", ["", "\n", "nonsense", "max", "100000 0", "-1 100000", "\x00\xff", "1 2 3"]
)
def test_v2_empty_or_broken_cpu_max_sets_no_limit(tmp_path: Path, text: str) -> None:
    root = v2(tmp_path, "/a", {"a/cpu.max": text})
    assert limit(root) == (8.0, "affinity mask")


def test_v2_quota_without_period_has_the_kernels_default(tmp_path: Path) -> None:
    assert limit(v2(tmp_path, "/a", {"a/cpu.max": "250000\n"}))[0] == 2.5


def test_v2_other_period(tmp_path: Path) -> None:
    assert limit(v2(tmp_path, "/a", {"a/cpu.max": "10000 40000\n"}))[0] == 0.25


def test_v2_container_with_its_own_namespace(tmp_path: Path) -> None:
    """Docker with a private cgroup namespace.

    The path is "/", and the limit lies at the mount point.
    """
    root = v2(tmp_path, "/", {"cpu.max": "300000 100000\n"})
    assert limit(root) == (3.0, "quota of /; affinity allows 8")


def test_v2_host_path_that_the_container_cannot_see(tmp_path: Path) -> None:
    root = v2(tmp_path, "/kubepods.slice/pod7/container9", {"cpu.max": "300000 100000\n"})
    assert limit(root)[0] == 3.0


def test_v2_tail_of_the_host_path_is_visible(tmp_path: Path) -> None:
    root = v2(
        tmp_path, "/pods/pod7/box", {"cpu.max": "300000 100000\n", "box/cpu.max": "100000 100000\n"}
    )
    assert limit(root) == (1.0, "quota of /pods/pod7/box; affinity allows 8")


def test_v2_process_outside_its_namespace(tmp_path: Path) -> None:
    root = v2(tmp_path, "/../other", {"cpu.max": "300000 100000\n"}, mount_root="/../..")
    assert limit(root) == (3.0, "quota of /; affinity allows 8")


def test_v2_deleted_mark_does_not_hide_the_mount_point(tmp_path: Path) -> None:
    root = v2(tmp_path, "/gone (deleted)", {"cpu.max": "300000 100000\n"})
    assert limit(root)[0] == 3.0


# Version 1


def test_v1_quota_of_the_own_cgroup(tmp_path: Path) -> None:
    root = v1(
        tmp_path,
        "/batch/job",
        {"batch/job/cpu.cfs_quota_us": "150000\n", "batch/job/cpu.cfs_period_us": "100000\n"},
    )
    assert limit(root) == (1.5, "quota of /batch/job; affinity allows 8")


def test_v1_minus_one_sets_no_limit(tmp_path: Path) -> None:
    root = v1(tmp_path, "/a", {"a/cpu.cfs_quota_us": "-1\n", "a/cpu.cfs_period_us": "100000\n"})
    assert limit(root) == (8.0, "affinity mask")


def test_v1_tighter_parent_binds(tmp_path: Path) -> None:
    root = v1(
        tmp_path,
        "/outer/inner",
        {
            "outer/cpu.cfs_quota_us": "25000",
            "outer/cpu.cfs_period_us": "50000",
            "outer/inner/cpu.cfs_quota_us": "200000",
            "outer/inner/cpu.cfs_period_us": "100000",
        },
    )
    assert limit(root) == (0.5, "quota of /outer; affinity allows 8")


def test_v1_container_whose_mount_starts_at_its_own_cgroup(tmp_path: Path) -> None:
    """Docker on version 1: host path in /proc/self/cgroup, and the mount's root is that path."""
    own = "/docker/4f1c"
    root = v1(
        tmp_path, own, {"cpu.cfs_quota_us": "350000", "cpu.cfs_period_us": "100000"}, mount_root=own
    )
    assert limit(root) == (3.5, "quota of /docker/4f1c; affinity allows 8")


def test_v1_cgroup_made_inside_a_container(tmp_path: Path) -> None:
    root = v1(
        tmp_path,
        "/docker/4f1c/inner",
        {
            "cpu.cfs_quota_us": "400000",
            "cpu.cfs_period_us": "100000",
            "inner/cpu.cfs_quota_us": "120000",
            "inner/cpu.cfs_period_us": "100000",
        },
        mount_root="/docker/4f1c",
    )
    assert limit(root) == (1.2, "quota of /docker/4f1c/inner; affinity allows 8")


def test_v1_host_path_that_the_container_cannot_see(tmp_path: Path) -> None:
    root = v1(
        tmp_path,
        "/kubepods/pod7/box",
        {"cpu.cfs_quota_us": "200000", "cpu.cfs_period_us": "100000"},
        mount_root="/kubepods/pod8",
    )
    assert limit(root)[0] == 2.0


def test_v1_found_through_proc_mounts_when_mountinfo_is_missing(tmp_path: Path) -> None:
    root = v1(tmp_path, "/a", {"a/cpu.cfs_quota_us": "100000", "a/cpu.cfs_period_us": "100000"})
    (tmp_path / "proc/self/mountinfo").unlink()
    write(
        tmp_path,
        {
            "/proc/mounts": "/dev/sda1 / ext4 rw 0 0\ncgroup /sys/fs/cgroup/cpu,cpuacct cgroup "
            "rw,cpu,cpuacct 0 0\n"
        },
    )
    assert limit(root)[0] == 1.0


def test_quota_file_without_period_file_has_the_default_period(tmp_path: Path) -> None:
    assert limit(v1(tmp_path, "/a", {"a/cpu.cfs_quota_us": "130000"}))[0] == 1.3


# Both versions, odd mounts, broken files


def test_hybrid_reads_the_quota_from_version_1_and_the_rest_from_2(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "/proc/self/cgroup": "3:cpu:/v1job\n0::/v2job\n",
            "/proc/self/mountinfo": V1_MOUNT.format(root="/", name="cpu")
            + "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
            "/sys/fs/cgroup/cpu/v1job/cpu.cfs_quota_us": "250000",
            "/sys/fs/cgroup/cpu/v1job/cpu.cfs_period_us": "100000",
            "/sys/fs/cgroup/unified/v2job/cgroup.procs": "1\n",
        },
    )
    assert limit(root) == (2.5, "quota of /v1job; affinity allows 8")
    assert [name for name, _ in cpus.cgroup_levels("cpu", root)] == ["/v1job", "/", "/v2job", "/"]


def test_of_two_mounts_the_one_with_more_parents_counts(tmp_path: Path) -> None:
    bind = "44 23 0:26 /slice/job /mnt/cgroup rw - cgroup2 cgroup2 rw\n"
    root = v2(
        tmp_path, "/slice/job", {"slice/cpu.max": "50000 100000", "slice/job/cpu.max": "max 100000"}
    )
    write(
        tmp_path,
        {
            "/proc/self/mountinfo": bind + V2_MOUNT.format(root="/"),
            "/mnt/cgroup/cpu.max": "max 100000",
        },
    )
    assert limit(root)[0] == 0.5


def test_mount_point_with_a_space(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "/proc/self/cgroup": "0::/\n",
            "/proc/self/mountinfo": "30 23 0:26 / /my\\040groups rw - cgroup2 cgroup2 rw\n",
            "/my groups/cpu.max": "70000 100000\n",
        },
    )
    assert limit(root)[0] == 0.7


def test_without_proc_self_cgroup_the_mount_point_still_counts(tmp_path: Path) -> None:
    root = v2(tmp_path, "/a", {"cpu.max": "200000 100000\n", "a/cpu.max": "100000 100000\n"})
    (tmp_path / "proc/self/cgroup").unlink()
    assert limit(root)[0] == 2.0


@pytest.mark.parametrize(
    "file", ["proc/self/cgroup", "proc/self/mountinfo", "sys/fs/cgroup/a/cpu.max"]
)
def test_a_folder_in_the_place_of_a_file_sets_no_limit(tmp_path: Path, file: str) -> None:
    root = v2(tmp_path, "/a", {"a/cpu.max": "200000 100000\n"})
    (tmp_path / file).unlink()
    (tmp_path / file).mkdir()
    assert limit(root) == (8.0, "affinity mask")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads every file")
def test_an_unreadable_file_sets_no_limit(tmp_path: Path) -> None:
    root = v2(tmp_path, "/a", {"a/cpu.max": "200000 100000\n"})
    (tmp_path / "sys/fs/cgroup/a/cpu.max").chmod(0)
    assert limit(root) == (8.0, "affinity mask")


@pytest.mark.parametrize(
    "line", ["", ":", "0", "0:", "x - cgroup", " - cgroup2", "1 2 3 - cgroup2 a b", "\xff\xfe"]
)
def test_broken_tables_set_no_limit(tmp_path: Path, line: str) -> None:
    files = {"/proc/self/cgroup": line, "/proc/self/mountinfo": line, "/proc/mounts": line}
    assert limit(write(tmp_path, files)) == (8.0, "affinity mask")


# Cpusets, PYTHON_CPU_COUNT, affinity


def test_cpuset_narrower_than_affinity(tmp_path: Path) -> None:
    root = v2(
        tmp_path, "/a", {"a/cpuset.cpus.effective": "0-1,5\n", "cpuset.cpus.effective": "0-7\n"}
    )
    assert limit(root) == (3.0, "cpuset of /a; affinity allows 8")
    assert cpus.allowed_cpus(root, affinity=EIGHT) == {0, 1, 5}


def test_cpuset_of_version_1_parent(tmp_path: Path) -> None:
    root = v1(tmp_path, "/a/b", {"a/cpuset.cpus": "2-3\n", "a/b/cpuset.cpus": "\n"}, name="cpuset")
    assert limit(root) == (2.0, "cpuset of /a; affinity allows 8")


def test_affinity_narrower_than_cpuset(tmp_path: Path) -> None:
    root = v2(tmp_path, "/a", {"a/cpuset.cpus.effective": "0-7\n"})
    assert limit(root, affinity=[3]) == (1.0, "affinity mask")


def test_cpuset_and_affinity_overlap_in_part(tmp_path: Path) -> None:
    root = v2(tmp_path, "/a", {"a/cpuset.cpus.effective": "2-7\n"})
    assert cpus.allowed_cpus(root, affinity=[0, 1, 2, 3]) == {2, 3}


def test_cpuset_without_a_common_cpu_is_not_believed(tmp_path: Path) -> None:
    root = v2(tmp_path, "/a", {"a/cpuset.cpus.effective": "64-71\n"})
    assert limit(root) == (8.0, "affinity mask")


def test_quota_below_a_cpuset(tmp_path: Path) -> None:
    root = v2(tmp_path, "/a", {"a/cpuset.cpus.effective": "0-3\n", "a/cpu.max": "250000 100000\n"})
    assert limit(root) == (2.5, "quota of /a; affinity allows 8")


def test_python_cpu_count(tmp_path: Path) -> None:
    assert limit(str(tmp_path), PYTHON_CPU_COUNT="3") == (
        3.0,
        "PYTHON_CPU_COUNT; affinity allows 8",
    )


@pytest.mark.parametrize("text", ["", "default", "0", "-2", "many", "100"])
def test_python_cpu_count_that_sets_nothing(tmp_path: Path, text: str) -> None:
    assert limit(str(tmp_path), PYTHON_CPU_COUNT=text) == (8.0, "affinity mask")


def test_option_x_cpu_count_comes_before_the_variable() -> None:
    code = "from teamster.machine.cpus import cpu_limit; print(cpu_limit(affinity=range(8)))"
    environ = {
        **os.environ,
        "PYTHON_CPU_COUNT": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    command = [sys.executable, "-X", "cpu_count=default", "-c", code]
    assert "PYTHON_CPU_COUNT" not in subprocess.check_output(command, env=environ, text=True)


def test_default_affinity_is_the_threads_own_mask(tmp_path: Path) -> None:
    assert cpus.cpu_budget(str(tmp_path)) <= len(cpus.affinity_mask())
    if sys.platform == "linux":
        assert cpus.affinity_mask() == os.sched_getaffinity(0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", {0}),
        ("0-2,7\n", {0, 1, 2, 7}),
        ("", set()),
        ("\n", set()),
        ("a-b", set()),
        ("1,,2", set()),
        ("3-", {3}),
    ],
)
def test_parse_cpu_list(text: str, expected: set[int]) -> None:
    assert cpus.parse_cpu_list(text) == expected


def test_names_and_folders_of_the_levels(tmp_path: Path) -> None:
    root = v2(tmp_path, "/a/b", {"a/b/cgroup.procs": ""})
    base = f"{tmp_path}/sys/fs/cgroup"
    assert cpus.cgroup_levels("cpu", root) == [
        ("/a/b", f"{base}/a/b"),
        ("/a", f"{base}/a"),
        ("/", base),
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="cgroups are Linux's")
def test_the_levels_of_this_process_exist() -> None:
    for controller in ("cpu", "cpuset", "memory"):
        assert all(Path(folder).is_dir() for _, folder in cpus.cgroup_levels(controller))


# Struck before its ``with`` has begun, a file is closed by the garbage collection alone
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_no_interrupt_is_lost_over_files_that_are_not_there(tmp_path: Path) -> None:
    """CPython drops an interrupt that strikes where ``int`` refuses an empty text."""
    root = v2(tmp_path, "/a/b", {"a/b/cgroup.procs": ""})
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        for microsecond in range(1, 401):  # the moments at which to strike
            with pytest.raises(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, microsecond * 1e-6)
                for _ in range(1000):
                    cpus.cpu_limit(root, affinity=EIGHT, environ={})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
