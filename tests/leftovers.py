# SPDX-License-Identifier: BSD-3-Clause
"""What a test could leave behind: processes, threads, files in /dev/shm."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import psutil

SHM = Path("/dev/shm")


@dataclass
class Traces:
    """What a test could leave behind, at one moment: key -> a name for the message."""

    processes: dict[int, str] = field(default_factory=dict)
    threads: dict[int, str] = field(default_factory=dict)
    shm: set[str] = field(default_factory=set)

    def since(self, earlier: Traces) -> list[str]:
        return [
            *(name for pid, name in self.processes.items() if pid not in earlier.processes),
            *(name for key, name in self.threads.items() if key not in earlier.threads),
            *(f"file {name}" for name in sorted(self.shm - earlier.shm)),
        ]


def describe(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return f"process {process.pid} ({process.status()}): {' '.join(process.cmdline())[:160]}"
    return f"process {process.pid}"


def _is_fork_server(process: psutil.Process) -> bool:
    try:
        command = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return "teamster" in command and "forkserver" in command


def _processes(known: dict[int, str]) -> dict[int, str]:
    """Everything below this process, but for its fork servers: one for each choice of modules.

    They may stay, and what they have forked may not.
    """
    me = psutil.Process()
    children = {process.pid: process for process in me.children(recursive=True)}
    if children.keys() <= known.keys():
        return {pid: known[pid] for pid in children}
    direct = {process.pid for process in me.children()}
    servers = [
        pid for pid, process in children.items() if pid in direct and _is_fork_server(process)
    ]
    forkserver = sys.modules.get("teamster.spine.workers.process.forkserver")
    for pid in servers[: max(1, len(forkserver._of_the_program) if forkserver else 0)]:
        del children[pid]
    return {pid: describe(process) for pid, process in children.items()}


def _threads() -> dict[int, str]:
    # The socket for those who look (tasks/monitor/socket.py) belongs to the program, as the fork
    # server does: it closes when that ends. So do the threads that torch's functions of one call
    # share (parallel/applying.py).
    own = (
        thread
        for thread in threading.enumerate()
        if not thread.name.startswith(("teamster-window", "teamster-shared"))
    )
    ours = (thread for thread in own if not thread.daemon or "teamster" in thread.name.lower())
    left = {
        id(thread): f"thread {thread.name!r}{' (daemon)' if thread.daemon else ''}"
        for thread in ours
    }
    limits = sys.modules.get("teamster.machine.native_threads")
    return left | {
        id(limit): f"a limit of native threads: {limit}"
        for limit in (limits._active if limits else ())
    }


def _shm(private: bool) -> set[str]:
    """Files in /dev/shm that are ours.

    All when nobody else can write there, else those that this process has open or mapped.
    """
    if private:
        return {str(SHM / name) for name in os.listdir(SHM)}
    if not Path("/proc/self/maps").exists():
        return set()
    mapped = {
        line.split(maxsplit=5)[-1].rstrip()
        for line in Path("/proc/self/maps").read_text().splitlines()
        if f"{SHM}/" in line
    }
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the listing itself
            mapped.add(os.readlink(f"/proc/self/fd/{number}"))
    return {name for name in mapped if name.startswith(f"{SHM}/")}


def find_traces(known: dict[int, str], private: bool) -> Traces:
    return Traces(_processes(known), _threads(), _shm(private))
