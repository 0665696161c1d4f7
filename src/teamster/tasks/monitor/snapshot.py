# SPDX-License-Identifier: BSD-3-Clause
"""What this program's pools are doing right now, as plain values."""

from __future__ import annotations

import os
import sys
from time import perf_counter_ns
from typing import Any, Protocol

from teamster.machine.cpus import usable_cores
from teamster.machine.usage import resident_bytes
from teamster.spine.plan.plan import Plan
from teamster.spine.trace.report import WallClock
from teamster.spine.workers.handle import WorkerHandle
from teamster.spine.workers.runner import title_of
from teamster.spine.workers.team import Team
from teamster.tasks.monitor import registry
from teamster.tasks.monitor.registry import open_pools
from teamster.tasks.teams import Teams

VERSION = 1  # of its form


class Seen(Protocol):
    """A pool."""

    _teams: Teams
    _clock: WallClock

    @property
    def plan(self) -> Plan:
        """How it works."""


def take_snapshot() -> dict[str, Any]:
    """Look at every pool of this process.

    Returns:
        Plain values, ready for JSON: ``version``, ``pid``, ``command``, ``now_ns``
        (CLOCK_MONOTONIC), ``cores``, ``memory_bytes`` and ``pools``, each with ``id``, ``title``,
        ``reason``, ``items``, ``failures``, ``wall_s``, ``deaths``, ``retries``, ``timeouts``,
        ``pickled_bytes``, ``arena_bytes``, ``queue`` (items handed out or queued, and not done),
        ``calls`` (``function``, ``done``, ``total`` or None, ``seconds``) and ``workers``
        (``label``, ``kind``, ``pid``, ``state``, ``items``, ``busy_s``, ``function``, ``index``,
        ``since_s``, ``memory_bytes``).

    Example:
        >>> import teamster as ts
        >>> with ts.Pool("serial") as pool:
        ...     _ = pool.map(abs, [-1])
        ...     take_snapshot()["pools"][-1]["items"]
        1
    """
    pools: list[Any] = [
        pool for pool in list(open_pools) if isinstance(getattr(pool, "_teams", None), Teams)
    ]
    pools.sort(key=lambda pool: pool._teams.number)
    return {
        "version": VERSION,
        "pid": os.getpid(),
        "command": " ".join([os.path.basename(sys.argv[0] or sys.executable), *sys.argv[1:]])
        if sys.argv
        else "",
        "now_ns": perf_counter_ns(),
        "cores": usable_cores(),
        "memory_bytes": resident_bytes(os.getpid()),
        "pools": [*(_pool(pool) for pool in pools), *_spawned()],
    }


def _spawned() -> list[dict[str, Any]]:
    """The processes that `ts.spawn` has started, as a pool.

    Each is busy with the one call that it makes.
    """
    processes = registry.spawned()
    if not processes:
        return []
    workers = [
        {
            **_NOTHING,
            **{name: each[name] for name in ("label", "pid", "function", "since_s")},
            "kind": "process",
            "items": 0,
            "busy_s": each["since_s"],
            "state": "running" if each["pid"] else "starting",
            "memory_bytes": resident_bytes(each["pid"]) if each["pid"] else None,
        }
        for each in processes
    ]
    title = f"spawn({len(workers)})"
    longest_s = max(each["since_s"] for each in processes)
    known = {
        "id": 0,
        "title": title,
        "reason": "started by ts.spawn",
        "wall_s": longest_s,
        "queue": 0,
        "calls": [],
    }
    return [{**known, **dict.fromkeys(_NUMBERS, 0), "workers": workers}]


def _pool(pool: Seen) -> dict[str, Any]:
    plan, teams = pool.plan, pool._teams
    with teams.lock:
        teams.note_bytes()
        ledger = teams.ledger()
        mappings = [mapping for mapping in list(teams.calls) if not mapping.over]
        runs_here = any(mapping.runs_here() for mapping in mappings)
        queue = sum(_waiting(team) for team in teams.present)
        present = {
            (team.backend.kind, worker.index): (team, worker)
            for team in teams.present
            for worker in team.dispatcher.workers
        }
        workers = []
        for account in ledger.accounts(plan.workers):
            kind, items = account.kind, account.items
            team, worker = present.get((kind, account.index), (None, None))
            if team is not None and worker is not None:
                state = _state(team, worker)
            else:
                state = {
                    "state": "running"
                    if kind == "caller" and runs_here
                    else "idle"
                    if items
                    else "absent"
                }
            known = {
                "label": account.label,
                "kind": kind,
                "items": items,
                "busy_s": account.busy_ns / 1e9,
            }
            workers.append({**known, **_NOTHING, **state})
    return {
        "id": teams.number,
        "title": f"{plan.backend}({plan.workers})",
        "reason": plan.reason,
        "wall_s": pool._clock.seconds,
        **{name: getattr(ledger, name) for name in _NUMBERS},
        "queue": queue,
        "calls": [mapping.progress() for mapping in mappings],
        "workers": workers,
    }


def worker_pids(pool: Seen) -> list[int]:
    """Of the processes that a pool has now."""
    with pool._teams.lock:
        workers = [worker for team in pool._teams.present for worker in team.dispatcher.workers]
    return [pid for worker in workers if (pid := getattr(worker, "pid", 0))]


_NUMBERS = ("items", "failures", "deaths", "retries", "timeouts", "pickled_bytes", "arena_bytes")
_NOTHING = {"pid": None, "function": None, "index": None, "since_s": None, "memory_bytes": None}


def _waiting(team: Team) -> int:
    """Items that were handed out or queued, and are not done."""
    queued = sum(batch.size for batch in team.dispatcher.queue)
    held = ((worker, batch) for worker in team.dispatcher.workers for batch in worker.outstanding)
    return queued + sum(max(0, worker.end_of(batch) - batch.done) for worker, batch in held)


def _state(team: Team, worker: WorkerHandle) -> dict[str, Any]:
    pid = getattr(worker, "pid", None)
    state: dict[str, Any] = {"pid": pid, "memory_bytes": resident_bytes(pid) if pid else None}
    running = worker.running()
    if not worker.ready and team.backend.pulls:
        return {**state, "state": "starting"}
    if running is None or not worker.outstanding:
        return {**state, "state": "idle"}
    number, _, since_ns = running
    batch = next(
        (
            batch
            for batch in worker.outstanding
            if batch.number <= number < batch.number + batch.size
        ),
        None,
    )
    if batch is None:
        return {**state, "state": "running"}
    since_s = (perf_counter_ns() - since_ns) / 1e9 if since_ns else 0.0
    index = batch.first + number - batch.number if batch.first >= 0 else None
    function = title_of(batch.job.spec.function)
    return {
        **state,
        "state": "running" if since_ns else "loading",
        "function": function,
        "index": index,
        "since_s": since_s,
    }
