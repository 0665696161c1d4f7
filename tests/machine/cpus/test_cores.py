# SPDX-License-Identifier: BSD-3-Clause
"""Cores: those that the budget lets a program use, and those that are no hyper-threads."""

from __future__ import annotations

from pathlib import Path

import pytest

from teamster.machine import cpus
from tests.machine.cgroup_trees import EIGHT, v2, write


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("50000", 1), ("100000", 1), ("199999", 1), ("200000", 2), ("790000", 7), ("9900000", 8)],
)
def test_usable_cores_round_down_and_are_at_least_one(
    tmp_path: Path, quota: str, cores: int
) -> None:
    root = v2(tmp_path, "/", {"cpu.max": f"{quota} 100000"})
    assert cpus.usable_cores(root, affinity=EIGHT) == cores


def topology(root: Path, file: str, siblings: dict[int, str]) -> str:
    return write(
        root,
        {
            f"/sys/devices/system/cpu/cpu{cpu}/topology/{file}": text
            for cpu, text in siblings.items()
        },
    )


@pytest.mark.parametrize("file", ["core_cpus_list", "thread_siblings_list"])
def test_hyper_threads_count_once(tmp_path: Path, file: str) -> None:
    root = topology(tmp_path, file, {cpu: f"{cpu % 4},{cpu % 4 + 4}\n" for cpu in EIGHT})
    assert cpus.physical_cores(root, affinity=EIGHT) == 4
    assert cpus.physical_cores(root, affinity=[0, 4]) == 1
    assert cpus.physical_cores(root, affinity=[0, 1, 5]) == 2


def test_cpus_without_topology_count_as_cores(tmp_path: Path) -> None:
    root = topology(tmp_path, "core_cpus_list", {0: "0-1", 1: "0-1", 2: "nonsense"})
    assert cpus.physical_cores(root, affinity=range(4)) == 3


def test_physical_cores_stay_within_the_cpuset(tmp_path: Path) -> None:
    root = v2(tmp_path, "/", {"cpuset.cpus.effective": "0-1\n"})
    assert cpus.physical_cores(root, affinity=EIGHT) == 2
