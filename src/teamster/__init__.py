# SPDX-License-Identifier: BSD-3-Clause
"""Teamster drives every core of a machine as one team.

::

    ts.map(f, xs)   Pool   teamster map           what you call          tasks/, cli/
    DataParallel                                  (needs torch)          parallel/
            |
           plan      what to do, and why                                 spine/plan
            |
         workers     what does it, and dies: serial, thread, process      spine/workers
            |
        transport    how data gets there without copies                  spine/transport
            |
          trace      what happened: ts.record, ts.span, ts.plot          spine/trace

    Machine          what there is to use                                machine/
    errors           every error of ours                                 errors.py

A line imports only what stands below it. Names resolve on first use, so importing the package costs
next to nothing.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from teamster.errors import (
        PoolClosed,
        RemoteError,
        StartMethodRefused,
        TaskError,
        TaskTimeout,
        TeamsterError,
        TooManyErrors,
        TransferError,
        UsageError,
        WorkerDied,
        WorkerStartError,
    )
    from teamster.machine import Machine
    from teamster.spine.plan.plan import Plan
    from teamster.spine.trace.export import plot
    from teamster.spine.trace.recording import Recording, record
    from teamster.spine.trace.report import Report
    from teamster.spine.trace.spans import span
    from teamster.spine.trace.timeline import Timeline
    from teamster.spine.workers.worker_info import WorkerInfo, current_worker
    from teamster.tasks.api import explain, imap, imap_unordered, map, starmap
    from teamster.tasks.own_executor import Executor
    from teamster.tasks.pool import Pool
    from teamster.tasks.spawned import Parent, parent
    from teamster.tasks.spawning import Process, spawn

__version__ = "0.1.0"

_HOMES = {
    "Executor": "teamster.tasks.own_executor",
    "Machine": "teamster.machine",
    "Parent": "teamster.tasks.spawned",
    "Plan": "teamster.spine.plan.plan",
    "Pool": "teamster.tasks.pool",
    "PoolClosed": "teamster.errors",
    "Process": "teamster.tasks.spawning",
    "Recording": "teamster.spine.trace.recording",
    "RemoteError": "teamster.errors",
    "Report": "teamster.spine.trace.report",
    "StartMethodRefused": "teamster.errors",
    "TaskError": "teamster.errors",
    "TaskTimeout": "teamster.errors",
    "TeamsterError": "teamster.errors",
    "Timeline": "teamster.spine.trace.timeline",
    "TooManyErrors": "teamster.errors",
    "TransferError": "teamster.errors",
    "UsageError": "teamster.errors",
    "WorkerDied": "teamster.errors",
    "WorkerInfo": "teamster.spine.workers.worker_info",
    "WorkerStartError": "teamster.errors",
    "current_worker": "teamster.spine.workers.worker_info",
    "explain": "teamster.tasks.api",
    "imap": "teamster.tasks.api",
    "imap_unordered": "teamster.tasks.api",
    "map": "teamster.tasks.api",
    "parent": "teamster.tasks.spawned",
    "plot": "teamster.spine.trace.export",
    "record": "teamster.spine.trace.recording",
    "span": "teamster.spine.trace.spans",
    "spawn": "teamster.tasks.spawning",
    "starmap": "teamster.tasks.api",
}

__all__ = [
    "Executor",
    "Machine",
    "Parent",
    "Plan",
    "Pool",
    "PoolClosed",
    "Process",
    "Recording",
    "RemoteError",
    "Report",
    "StartMethodRefused",
    "TaskError",
    "TaskTimeout",
    "TeamsterError",
    "Timeline",
    "TooManyErrors",
    "TransferError",
    "UsageError",
    "WorkerDied",
    "WorkerInfo",
    "WorkerStartError",
    "current_worker",
    "explain",
    "imap",
    "imap_unordered",
    "map",
    "parent",
    "plot",
    "record",
    "span",
    "spawn",
    "starmap",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'teamster' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
