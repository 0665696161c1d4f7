# SPDX-License-Identifier: BSD-3-Clause
"""What a family of processes takes of the machine.

That is processors, time spent waiting for one, memory, and what a quota withheld.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from time import perf_counter

from teamster.machine.cpus import cgroup_levels, read_text

_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Usage:
    """Between two looks.

    Attributes:
        processors: in use, on average.
        delayed: threads that were ready to run while others had the processors, on average.
        throttled: share of the time for which the cgroup's quota kept all threads from running, 0
            to 1.
        memory_bytes: of this process, and what the others have for themselves, now.

    Example:
        >>> Usage(1.5, 0.1, 0.0, 1 << 20).processors
        1.5
    """

    processors: float
    delayed: float
    throttled: float
    memory_bytes: int


class UsageMeter:
    """Looks at this process and others; each look tells what happened since the last.

    Args:
        root: the folder that holds ``proc`` and ``sys``.

    Example:
        >>> meter = UsageMeter()
        >>> usage = meter.read([])
        >>> usage.memory_bytes >= 0
        True
    """

    def __init__(self, root: str = "/") -> None:
        self._proc = f"{root.rstrip('/')}/proc"
        self._stat = _throttle_file(root)
        self._threads: dict[str, tuple[int, int]] = {}
        self._known: set[int] = set()
        self._throttled_s = self._read_throttled()
        self._read_s = perf_counter()
        self._read_threads([os.getpid()])

    def read(self, others: Iterable[int]) -> Usage:
        """What was used since the last look.

        Args:
            others: process ids, of workers.

        Returns:
            Averages over that time, and the memory now.
        """
        pids = [os.getpid(), *others]
        now, throttled_s = perf_counter(), self._read_throttled()
        elapsed = max(now - self._read_s, 1e-9)
        run_ns, delay_ns = self._read_threads(pids)
        share = min(1.0, max(0.0, throttled_s - self._throttled_s) / elapsed)
        self._read_s, self._throttled_s = now, throttled_s
        memory = resident_bytes(pids[0], self._proc) + sum(
            resident_bytes(pid, self._proc, shared=False) for pid in pids[1:]
        )
        return Usage(run_ns / 1e9 / elapsed, delay_ns / 1e9 / elapsed, share, memory)

    def _read_threads(self, pids: list[int]) -> tuple[int, int]:
        """Run time and run delay (ns) since the last look, of all threads that are still there."""
        seen: dict[str, tuple[int, int]] = {}
        # Of processes seen for the first time: what they did before does not count
        new: dict[str, tuple[int, int]] = {}
        for pid in pids:
            try:
                threads = os.listdir(f"{self._proc}/{pid}/task")
            except OSError:  # it has ended, or this system has no such folder
                continue
            for thread in threads:
                fields = (read_text(f"{self._proc}/{pid}/task/{thread}/schedstat") or "").split()
                if len(fields) >= 2:
                    (seen if pid in self._known else new)[thread] = int(fields[0]), int(fields[1])
        before, self._threads, self._known = self._threads, seen | new, set(pids)
        run_ns = sum(run - before.get(thread, (0, 0))[0] for thread, (run, _) in seen.items())
        delay_ns = sum(delay - before.get(thread, (0, 0))[1] for thread, (_, delay) in seen.items())
        return run_ns, delay_ns

    def _read_throttled(self) -> float:
        path, name, unit = self._stat
        for line in (read_text(path) or "").splitlines() if path else ():
            words = line.split()
            if len(words) == 2 and words[0] == name:
                return int(words[1]) * unit
        return 0.0


def resident_bytes(pid: int, proc: str = "/proc", *, shared: bool = True) -> int:
    """Memory of a process that is in the machine.

    Args:
        pid: its number.
        proc: the folder of processes.
        shared: count files and segments that others may have mapped, too.

    Returns:
        Bytes; 0 where that cannot be read.

    Example:
        >>> resident_bytes(-1)
        0
    """
    fields = (read_text(f"{proc}/{pid}/statm") or "").split()
    if len(fields) < 3:
        return 0
    return _PAGE * (int(fields[1]) if shared else int(fields[1]) - int(fields[2]))


def _throttle_file(root: str) -> tuple[str, str, float]:
    """The file that counts throttling, its line, and the seconds in a unit.

    The path is empty where nothing counts.
    """
    for _, folder in cgroup_levels("cpu", root):
        text = read_text(f"{folder}/cpu.stat") or ""
        for name, unit in (("throttled_usec", 1e-6), ("throttled_time", 1e-9)):
            if name in text:
                return f"{folder}/cpu.stat", name, unit
    return "", "", 0.0


def proportional_bytes(pid: int) -> int:
    """Return the memory of a process, where what it shares counts by its share of it (PSS).

    Args:
        pid: Of the process.

    Returns:
        The size in bytes; 0 where the kernel does not tell it, or there is no such process.

    Example:
        >>> proportional_bytes(-1)
        0
    """
    for line in (read_text(f"/proc/{pid}/smaps_rollup") or "").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
