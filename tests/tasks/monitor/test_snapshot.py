# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import teamster as ts
from teamster.tasks.monitor.snapshot import take_snapshot


def test_a_program_without_pools() -> None:
    seen = take_snapshot()
    assert seen["pid"] == os.getpid()
    assert seen["memory_bytes"] > 0
    assert json.loads(json.dumps(seen)) == seen


def test_what_workers_are_doing(tmp_path: Path, wait_until: Callable[..., None]) -> None:
    def wait(name: str) -> str:
        (tmp_path / name).touch()
        while not (tmp_path / "go").exists():
            threading.Event().wait(0.01)
        return name

    with ts.Pool("process", workers=2) as pool:
        futures = [threading.Thread(target=pool.map, args=(wait, ["a", "b", "c"]))]
        futures[0].start()
        try:
            wait_until(lambda: (tmp_path / "a").exists() and (tmp_path / "b").exists())
            seen = [each for each in take_snapshot()["pools"] if each["title"] == "process(2)"][-1]
            workers = {worker["label"]: worker for worker in seen["workers"]}
            assert {worker["state"] for worker in workers.values()} == {"running"}
            assert sorted(worker["index"] for worker in workers.values()) == [0, 1]
            assert all(worker["function"].endswith("wait") for worker in workers.values())
            assert all(
                worker["pid"] > 0 and worker["memory_bytes"] > 0 for worker in workers.values()
            )
            assert all(worker["since_s"] >= 0 for worker in workers.values())
            assert seen["queue"] == 3
            (call,) = seen["calls"]
            assert (call["done"], call["total"]) == (0, 3)
        finally:
            (tmp_path / "go").touch()
            futures[0].join()

        def after() -> dict[str, Any]:
            pools: list[dict[str, Any]] = take_snapshot()["pools"]
            return [each for each in pools if each["title"] == "process(2)"][-1]

        # A worker sends its last results, and marks then that it runs nothing
        wait_until(lambda: {worker["state"] for worker in after()["workers"]} == {"idle"})
        assert (after()["items"], after()["queue"], after()["calls"]) == (3, 0, [])


def test_the_caller_that_runs_items_itself_is_a_worker() -> None:
    seen: list[dict[str, Any]] = []

    def look(number: int) -> int:
        if number == 5:
            seen.append(take_snapshot()["pools"][-1])
        return number

    with ts.Pool() as pool:
        pool.map(look, range(10))
    caller = seen[0]["workers"][0] if seen[0]["workers"] else None
    assert caller is None or caller["label"] in ("caller", "serial 0")
    assert seen[0]["calls"][0]["total"] == 10
