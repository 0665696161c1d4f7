# SPDX-License-Identifier: BSD-3-Clause
"""How much memory this process may use, and how often the kernel killed for it.

The limit is the least of the physical memory and the memory limit of every cgroup level above the
process. What is available is what the kernel calls so, and under each limited cgroup the room below
its limit, where file pages that have not been used lately count as free, as Kubernetes counts them.

All sizes are bytes. A file that is missing, unreadable or malformed sets no limit; nothing here
raises over it.
"""

from __future__ import annotations

import os

from teamster.machine.cpus import cgroup_levels, read_text
from teamster.units import show_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def memory_limit(root: str = "/") -> tuple[int, str]:
    """Return the memory that this process may use at most, and what limits it.

    Args:
        root: The folder that holds ``proc`` and ``sys``.

    Returns:
        The limit in bytes and its source, such as
        ``"limit of /docker/4f1c; the machine has 23.5 GiB"``.

    Example:
        >>> size, source = memory_limit()
        >>> size > 0 and len(source) > 0
        True
    """
    physical = _physical_bytes(root)
    size, source = physical, "physical memory"
    for name, directory in cgroup_levels("memory", root):
        limit = _limit(directory)
        if limit is not None and limit < size:
            size, source = limit, f"limit of {name}; the machine has {show_bytes(physical)}"
    return size, source


def available_bytes(root: str = "/") -> int:
    """Return the memory that can be taken now without swapping and without reaching a limit.

    Args:
        root: The folder that holds ``proc`` and ``sys``.

    Returns:
        The size in bytes, 0 or more. It is a moment's estimate: other processes take from the same
        memory.

    Example:
        >>> 0 <= available_bytes() <= memory_limit()[0]
        True
    """
    rooms = [_meminfo(root).get("MemAvailable") or _available_by_psutil(), memory_limit(root)[0]]
    for _, directory in cgroup_levels("memory", root):
        limit, used = _limit(directory), _used(directory)
        if limit is not None and used is not None:
            rooms.append(limit - used)
    return max(0, min(rooms))


def shm_bytes(root: str = "/") -> int:
    """Return the size of ``/dev/shm``, used and free together.

    Args:
        root: The folder that holds ``dev``.

    Returns:
        The size in bytes, 0 where there is no such folder.

    Example:
        >>> shm_bytes() >= 0
        True
    """
    try:
        status = os.statvfs(f"{root.rstrip('/')}/dev/shm")
    except OSError:
        return 0
    return status.f_frsize * status.f_blocks


def oom_kills(root: str = "/") -> int | None:
    """Return how many processes the kernel has killed for memory in this process's cgroup.

    Read it before and after a worker's death: a number that grew is evidence that the kernel killed
    for want of memory in that time. It is not proof for one worker, since processes of others in
    the same cgroup are counted too. In version 2 the kills of cgroups below count, in version 1
    they do not.

    Args:
        root: The folder that holds ``proc`` and ``sys``.

    Returns:
        The count since the cgroup was made, or None where no such counter can be read (the topmost
        cgroup of version 2 has none, and macOS has no cgroups).

    Example:
        >>> kills = oom_kills()
        >>> kills is None or kills >= 0
        True
    """
    for _, directory in cgroup_levels("memory", root):
        for file in ("memory.events", "memory.oom_control"):
            count = _counters(f"{directory}/{file}").get("oom_kill")
            if count is not None:
                return count
    return None


def _physical_bytes(root: str) -> int:
    """Return the machine's memory in bytes."""
    return _meminfo(root).get("MemTotal") or os.sysconf("SC_PHYS_PAGES") * os.sysconf(
        "SC_PAGE_SIZE"
    )


def _meminfo(root: str) -> dict[str, int]:
    """Return the first figures of ``/proc/meminfo`` in bytes; none on a platform without it."""
    sizes: dict[str, int] = {}
    text = read_text(f"{root.rstrip('/')}/proc/meminfo") or ""
    for line in text.splitlines()[:5]:  # MemTotal, MemFree and MemAvailable open the file
        name, _, rest = line.partition(":")
        fields = rest.split()
        if fields and fields[0].isdecimal():
            sizes[name] = int(fields[0]) * 1024
    return sizes


def _available_by_psutil() -> int:
    """Return the available memory where the kernel has no ``/proc/meminfo``.

    ``psutil`` costs 20 ms to import.
    """
    import importlib

    return int(importlib.import_module("psutil").virtual_memory().available)


def _limit(directory: str) -> int | None:
    """Return one cgroup's memory limit in bytes; version 1 writes "none" as a number near 2**63."""
    for file in ("memory.max", "memory.limit_in_bytes"):
        text = (read_text(f"{directory}/{file}") or "").strip()
        if text.isdecimal():
            return int(text)
    return None


def _used(directory: str) -> int | None:
    """Return one cgroup's memory in use in bytes.

    The file pages that the kernel would drop first do not count.
    """
    for file, idle in (
        ("memory.current", "inactive_file"),
        ("memory.usage_in_bytes", "total_inactive_file"),
    ):
        text = (read_text(f"{directory}/{file}") or "").strip()
        if text.isdecimal():
            return max(0, int(text) - _counters(f"{directory}/memory.stat").get(idle, 0))
    return None


def _counters(path: str) -> dict[str, int]:
    """Return a file of lines ``name number`` as a mapping; other lines are skipped."""
    return dict(_counter_lines(read_text(path) or ""))


def _counter_lines(text: str) -> Iterator[tuple[str, int]]:
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if value.strip().isdecimal():
            yield name, int(value)
