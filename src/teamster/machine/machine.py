# SPDX-License-Identifier: BSD-3-Clause
"""All facts about this machine in one frozen value."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass

from teamster.machine.cpus import affinity_mask, allowed_cpus, cpu_limit, physical_cores
from teamster.machine.gpus import Gpu, find_gpus
from teamster.machine.memory import available_bytes, memory_limit, shm_bytes
from teamster.machine.numa import NumaNode, format_cpus, numa_nodes
from teamster.units import show_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

_NODES_SHOWN = 4  # a text of a dozen lines has no room for the CPUs of more


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What there is to use, and what limits it; made by :meth:`detect`.

    Attributes:
        cpu_budget: CPUs' worth of time this process may use, a fraction: 1.5 is 1.5 s of CPU time a
            second.
        cpu_limit_source: What sets the budget, such as
            ``"quota of /job.slice; affinity allows 8"``.
        usable_cores: The budget rounded down, at least 1: how many busy workers fit.
        physical_cores: Cores behind the CPUs that the process may run on; hyper-threads of one core
            count once.
        numa_nodes: The NUMA nodes with those of their CPUs that the process may run on; empty where
            unknown.
        memory_bytes: The most memory the process may use, in bytes.
        memory_limit_source: What sets that, such as ``"physical memory"``.
        available_memory_bytes: Memory free to take at the moment of detection, in bytes.
        shm_bytes: Size of ``/dev/shm`` in bytes; 0 where there is none.
        gpus: The GPUs that this process can use.
        python_version: Such as ``"3.11.7"``.
        implementation: Such as ``"cpython"``.
        free_threaded: True where the interpreter runs without the GIL now.
        start_methods: Ways to start a process here, the safest first.
        memfd: True where anonymous shared memory (``memfd_create``) works.

    Example:
        >>> machine = Machine.detect()
        >>> 1 <= machine.usable_cores <= max(1, machine.cpu_budget)
        True
    """

    cpu_budget: float
    cpu_limit_source: str
    usable_cores: int
    physical_cores: int
    numa_nodes: tuple[NumaNode, ...]
    memory_bytes: int
    memory_limit_source: str
    available_memory_bytes: int
    shm_bytes: int
    gpus: tuple[Gpu, ...]
    python_version: str
    implementation: str
    free_threaded: bool
    start_methods: tuple[str, ...]
    memfd: bool

    @classmethod
    def detect(
        cls, root: str | os.PathLike[str] = "/", *, affinity: Collection[int] | None = None
    ) -> Machine:
        """Find out what this process may use.

        Takes a few milliseconds, and up to about 2 s where ``nvidia-smi`` is installed. Imports no
        library of the user's and starts nothing on a GPU.

        Args:
            root: The folder that holds ``proc``, ``sys`` and ``dev``; another one serves to
                describe a copied tree.
            affinity: The CPU numbers of the affinity mask; default: the calling thread's own mask.

        Returns:
            The facts as they are now; limits may change later.

        Example:
            >>> Machine.detect().memory_bytes > 0
            True
        """
        top = os.fspath(root)
        mask = affinity_mask() if affinity is None else affinity
        budget, cpu_source = cpu_limit(top, affinity=mask)
        memory, memory_source = memory_limit(top)
        return cls(
            cpu_budget=budget,
            cpu_limit_source=cpu_source,
            usable_cores=max(1, int(budget)),
            physical_cores=physical_cores(top, affinity=mask),
            numa_nodes=numa_nodes(top, allowed=allowed_cpus(top, affinity=mask)),
            memory_bytes=memory,
            memory_limit_source=memory_source,
            available_memory_bytes=available_bytes(top),
            shm_bytes=shm_bytes(top),
            gpus=find_gpus(top),
            python_version=sys.version.split()[0],
            implementation=sys.implementation.name,
            free_threaded=_runs_without_gil(),
            start_methods=_start_methods(),
            memfd=_memfd_works(),
        )

    def to_dict(self) -> dict[str, object]:
        """Return the facts as plain dicts, lists, strings and numbers, ready for JSON.

        Returns:
            One entry for each attribute, with the same name and unit.

        Example:
            >>> Machine.detect().to_dict()["python_version"] == Machine.detect().python_version
            True
        """
        return {name: _listed(value) for name, value in asdict(self).items()}

    def __str__(self) -> str:
        """Return the facts as aligned lines, each limit with its source."""
        rows = [
            ("CPU budget", f"{_count(self.cpu_budget, 'CPU')}  ({self.cpu_limit_source})"),
            ("usable cores", f"{self.usable_cores}"),
            ("physical cores", f"{self.physical_cores}"),
            ("NUMA nodes", _describe_nodes(self.numa_nodes)),
            ("memory", f"{show_bytes(self.memory_bytes)}  ({self.memory_limit_source})"),
            ("available", show_bytes(self.available_memory_bytes)),
            ("/dev/shm", show_bytes(self.shm_bytes) if self.shm_bytes else "none"),
            ("GPUs", _describe_gpus(self.gpus)),
            (
                "Python",
                f"{self.python_version} {self.implementation}, {_gil_phrase(self.free_threaded)}",
            ),
            ("start methods", ", ".join(self.start_methods)),
            ("memfd", "yes" if self.memfd else "no  (arrays travel by pickle)"),
        ]
        width = max(len(label) for label, _ in rows)
        return "\n".join(f"{label:<{width}}  {text}" for label, text in rows)


def _runs_without_gil() -> bool:
    enabled = getattr(sys, "_is_gil_enabled", None)  # 3.13 and newer
    return enabled is not None and not enabled()


def _start_methods() -> tuple[str, ...]:
    """Return multiprocessing's list, safest first.

    Importing multiprocessing to ask it costs 11 ms.
    """
    return ("forkserver", "spawn", "fork") if hasattr(os, "fork") else ("spawn",)


def _memfd_works() -> bool:
    """Try it: a sandbox may forbid a call that the platform has."""
    if sys.platform != "linux":
        return False
    try:
        os.close(os.memfd_create("teamster-probe", os.MFD_CLOEXEC))
    except (AttributeError, OSError):
        return False
    return True


def _listed(value: object) -> object:
    """Return the value with tuples turned into lists, as JSON would."""
    if isinstance(value, dict):
        return {name: _listed(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_listed(item) for item in value]
    return value


def _count(number: float, noun: str) -> str:
    return (
        f"{number:.3g} {noun}{'' if number == 1 else 's'}"
        if number < 100
        else f"{number:.0f} {noun}s"
    )


def _gil_phrase(free_threaded: bool) -> str:
    return "free-threaded" if free_threaded else "with the GIL"


def _describe_nodes(nodes: tuple[NumaNode, ...]) -> str:
    if not nodes:
        return "not reported"
    if len(nodes) > _NODES_SHOWN:
        return f"{len(nodes)}  ({_count(sum(len(node.cpus) for node in nodes), 'CPU')} together)"
    each = []
    for node in nodes:
        cpus = f"CPUs {format_cpus(node.cpus)}" if node.cpus else "no CPU"
        each.append(f"{node.index}: {cpus}, {show_bytes(node.memory_bytes)}")
    return f"{len(nodes)}  ({'; '.join(each)})"


def _describe_gpus(gpus: tuple[Gpu, ...]) -> str:
    """Return equal GPUs counted together: eight of them are one fact."""
    kinds: dict[tuple[str, int], int] = {}
    for gpu in gpus:
        kinds[gpu.name, gpu.memory_bytes] = kinds.get((gpu.name, gpu.memory_bytes), 0) + 1
    each = (
        f"{count} x {name}, {show_bytes(size) if size else 'memory not known'}"
        for (name, size), count in kinds.items()
    )
    return "; ".join(each) or "none"
