# SPDX-License-Identifier: BSD-3-Clause
"""NUMA nodes from copies of /sys/devices/system/node."""

from __future__ import annotations

from pathlib import Path

import pytest

from teamster.machine.numa import NumaNode, format_cpus, numa_nodes

MEMINFO = "Node {0} MemTotal:       {1} kB\nNode {0} MemFree:        5 kB\n"


def nodes_tree(root: Path, online: str, nodes: dict[int, tuple[str, int]]) -> str:
    folder = root / "sys/devices/system/node"
    folder.mkdir(parents=True)
    (folder / "online").write_text(online)
    for index, (cpus, kib) in nodes.items():
        (folder / f"node{index}").mkdir()
        (folder / f"node{index}/cpulist").write_text(cpus)
        (folder / f"node{index}/meminfo").write_text(MEMINFO.format(index, kib))
    return str(root)


def test_two_sockets_with_hyper_threads(tmp_path: Path) -> None:
    root = nodes_tree(tmp_path, "0-1\n", {0: ("0-1,4-5\n", 1024), 1: ("2-3,6-7\n", 2048)})
    assert numa_nodes(root) == (NumaNode(0, (0, 1, 4, 5), 2**20), NumaNode(1, (2, 3, 6, 7), 2**21))


def test_only_cpus_that_are_allowed(tmp_path: Path) -> None:
    root = nodes_tree(tmp_path, "0-1\n", {0: ("0-3", 1), 1: ("4-7", 1)})
    assert [node.cpus for node in numa_nodes(root, allowed=[1, 2, 9])] == [(1, 2), ()]


def test_gap_in_the_numbers_and_a_node_of_memory_only(tmp_path: Path) -> None:
    root = nodes_tree(tmp_path, "0,8\n", {0: ("0-3", 1024), 8: ("\n", 4096)})
    assert numa_nodes(root) == (NumaNode(0, (0, 1, 2, 3), 2**20), NumaNode(8, (), 2**22))


def test_no_report(tmp_path: Path) -> None:
    assert numa_nodes(str(tmp_path)) == ()


def test_files_of_a_node_are_missing_or_broken(tmp_path: Path) -> None:
    root = nodes_tree(tmp_path, "0-1\n", {0: ("0-3", 1024)})
    (tmp_path / "sys/devices/system/node/node0/meminfo").write_text("Node 0 MemTotal:\nnonsense")
    assert numa_nodes(root) == (NumaNode(0, (0, 1, 2, 3), 0), NumaNode(1, (), 0))


@pytest.mark.parametrize(
    ("cpus", "text"), [([], ""), ([3], "3"), ([5, 4, 0, 6], "0,4-6"), (range(64), "0-63")]
)
def test_format_cpus(cpus: list[int], text: str) -> None:
    assert format_cpus(cpus) == text
