# SPDX-License-Identifier: BSD-3-Clause
"""Which CPUs and how much memory stand together: the NUMA nodes.

A thread reads the memory of its own node about twice as fast as that of another, so workers are
placed by node.
"""

from __future__ import annotations

from dataclasses import dataclass

from teamster.machine.cpus import parse_cpu_list, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection


@dataclass(frozen=True, slots=True)
class NumaNode:
    """One NUMA node.

    Attributes:
        index: The kernel's number of the node; numbers may have gaps.
        cpus: The CPU numbers of the node in rising order; empty for a node that is only memory, or
            one with CPUs that this process may not use.
        memory_bytes: The node's memory in bytes, 0 where the kernel does not say.

    Example:
        >>> NumaNode(index=0, cpus=(0, 1), memory_bytes=2**30).cpus
        (0, 1)
    """

    index: int
    cpus: tuple[int, ...]
    memory_bytes: int


def numa_nodes(root: str = "/", *, allowed: Collection[int] | None = None) -> tuple[NumaNode, ...]:
    """Return the NUMA nodes of this machine.

    Args:
        root: The folder that holds ``sys``.
        allowed: CPU numbers to keep, usually those that this process may run on; default: all.

    Returns:
        The nodes by rising number, none where the kernel reports none (macOS, a kernel without
        NUMA).

    Example:
        >>> all(node.index >= 0 for node in numa_nodes())
        True
    """
    folder = f"{root.rstrip('/')}/sys/devices/system/node"
    nodes = []
    for index in sorted(parse_cpu_list(read_text(f"{folder}/online") or "")):
        cpus = parse_cpu_list(read_text(f"{folder}/node{index}/cpulist") or "")
        kept = cpus if allowed is None else cpus.intersection(allowed)
        nodes.append(
            NumaNode(index, tuple(sorted(kept)), _memory_bytes(f"{folder}/node{index}/meminfo"))
        )
    return tuple(nodes)


def format_cpus(cpus: Collection[int]) -> str:
    """Return CPU numbers as the kernel writes them.

    Args:
        cpus: The CPU numbers in any order.

    Returns:
        Ranges and single numbers with commas between them; an empty string for none.

    Example:
        >>> format_cpus([8, 0, 1, 2, 3])
        '0-3,8'
    """
    ranges: list[list[int]] = []
    for cpu in sorted(cpus):
        if ranges and ranges[-1][1] == cpu - 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def _memory_bytes(path: str) -> int:
    """Return MemTotal of a node's meminfo, with lines as ``Node 0 MemTotal: 24684084 kB``."""
    for line in (read_text(path) or "").splitlines():
        fields = line.split()
        if len(fields) >= 4 and fields[2] == "MemTotal:" and fields[3].isdecimal():
            return int(fields[3]) * 1024
    return 0
