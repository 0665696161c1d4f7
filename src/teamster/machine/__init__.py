# SPDX-License-Identifier: BSD-3-Clause
"""What is here to use: facts about this computer and this process, and nothing else.

::

    openmp           the helpers that spin on others' processors
    native_threads   how many threads BLAS, OpenMP and torch take, and how to hold them to a number
    machine          all facts in one frozen value: ``Machine.detect()``
        gpus         the accelerators
        numa         which CPUs and how much memory are near each other
        memory       physical memory, the limits on it, the kernel's record of kills
        cpus         the CPUs one may run on, the share of them one may use, the cgroups that say so

The lowest floor of the house: standard library only (threadpoolctl and psutil are imported inside
the functions that need them), and nothing of ours. The names below are resolved when they are first
used, because ``dataclasses`` costs 12 ms to import and a worker that only counts its cores needs
none of it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from teamster.machine.cpus import cpu_budget, usable_cores
    from teamster.machine.gpus import Gpu
    from teamster.machine.machine import Machine
    from teamster.machine.memory import oom_kills
    from teamster.machine.native_threads import ProcessWideLimit, environment, limit_in_this_thread
    from teamster.machine.numa import NumaNode

__all__ = [
    "Gpu",
    "Machine",
    "NumaNode",
    "ProcessWideLimit",
    "cpu_budget",
    "environment",
    "limit_in_this_thread",
    "oom_kills",
    "usable_cores",
]

_HOME = {
    "Gpu": "gpus",
    "Machine": "machine",
    "NumaNode": "numa",
    "ProcessWideLimit": "native_threads",
    "cpu_budget": "cpus",
    "environment": "native_threads",
    "limit_in_this_thread": "native_threads",
    "oom_kills": "memory",
    "usable_cores": "cpus",
}


def __getattr__(name: str) -> object:
    """Import the file that owns a public name on first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value: object = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
