# SPDX-License-Identifier: BSD-3-Clause
"""What a pool makes of plans, and what it leaves behind."""

from __future__ import annotations

import decimal
import gc
import json
import os
import random
import signal
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

import teamster as ts
from teamster.spine.workers.job import CallOptions
from teamster.tasks.arguments import MapCall
from teamster.tasks.progress import Bar
from teamster.tasks.source import Source
from tests.conftest import RunScript


def test_a_recorded_plan_keeps_to_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recorded = {f"{kind.__module__}:kind#0": ts.Plan("thread", 4, "recorded").to_dict()}
    (tmp_path / "plans.json").write_text(json.dumps({"plans": recorded}))
    monkeypatch.setenv("TEAMSTER_PLAN_FILE", str(tmp_path / "plans.json"))
    assert set(ts.map(kind, range(50))) == {"thread"}
    assert "thread" not in ts.map(kind, range(50), allow=("serial", "process"))


def kind(_: object) -> str:
    time.sleep(0.002)
    return ts.current_worker().kind  # type: ignore[union-attr]


def test_no_more_workers_than_the_plan_says() -> None:
    """Those of a larger plan before it are let go."""
    running: list[int] = []
    most = 0

    def watch(_: int) -> None:
        nonlocal most
        running.append(1)
        most = max(most, len(running))
        time.sleep(0.005)
        running.pop()

    source, terms = Source((range(40),)), CallOptions(0, None, None)
    with ts.Pool(allow=("serial", "thread")) as pool:
        for workers in (8, 2):
            most, source = 0, Source((range(40),))
            call = MapCall(
                watch,
                "call",
                None,
                source,
                terms,
                Bar(False, 40),
                raise_errors=True,
                ordered=True,
                lazy=False,
            )
            pool._planner._fixed(call, ts.Plan("thread", workers, "")).collect()
            assert 0 < most <= workers


def fail_in_processes() -> None:
    worker = ts.current_worker()
    if worker is not None and worker.kind == "process":
        raise OSError("no licence in here")


def loop(_: object) -> int:
    return sum(range(30_000))


def test_an_initializer_that_fails_in_processes_ends_the_call() -> None:
    with (
        ts.Pool(initializer=fail_in_processes) as pool,
        pytest.raises(OSError, match="no licence in here"),
    ):
        pool.map(loop, range(1_500))


def change_everything() -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    random.seed(0)
    decimal.getcontext().prec = 7
    os.environ["TEAMSTER_TEST"] = "changed"
    PREPARED.append(os.getpid())


PREPARED: list[int] = []


def use(item: int) -> tuple[int, int, str | None]:
    time.sleep(0.002)
    return item, decimal.getcontext().prec, os.environ.get("TEAMSTER_TEST")


def test_an_initializer_changes_its_workers_and_not_the_program() -> None:
    before = signal.getsignal(signal.SIGUSR1), random.getstate(), use(0)
    with ts.Pool(initializer=change_everything) as pool:
        for count in (1, 60, 60):
            assert pool.map(use, range(count)) == [(item, 7, "changed") for item in range(count)]
            assert pool.plan.backend == "process"
        assert list(pool.imap(use, range(3))) == [(item, 7, "changed") for item in range(3)]
    assert (signal.getsignal(signal.SIGUSR1), random.getstate(), use(0)) == before
    assert PREPARED == []


def test_a_closed_pool_makes_no_team() -> None:
    pool = ts.Pool()
    pool.close()
    with pytest.raises(ts.PoolClosed):
        pool._teams.team(ts.Plan("thread", 4, ""))


class Result:
    """What a weak reference can be made to."""


def test_nothing_of_a_call_stays_in_its_pool() -> None:
    with ts.Pool() as pool:
        kept = weakref.ref(pool.map(lambda _: Result(), range(3))[0])
        gc.collect()
        assert kept() is None


def test_many_calls_leave_no_descriptor() -> None:
    gc.collect()
    gc.disable()
    try:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(50):
            ts.map(abs, range(30))
        assert len(os.listdir("/proc/self/fd")) <= before + 1
    finally:
        gc.enable()


def test_the_input_is_no_item() -> None:
    """It runs outside of what is measured, seeded and known as a worker."""
    seen: list[object] = []

    def items() -> Iterator[float]:
        for _ in range(20):
            seen.append(ts.current_worker())
            yield random.random()

    random.seed(1)
    expected = [random.random() for _ in range(20)]
    random.seed(1)
    assert ts.map(lambda item: item, items(), seed=5) == expected
    assert set(seen) == {None}


def test_a_map_inside_an_item_of_the_callers_own_is_not_held_back() -> None:
    assert "thread" in ts.map(lambda _: set(ts.map(kind, range(200))), [1])[0]


def test_a_plan_without_workers_is_refused() -> None:
    for workers in (0, -1, "4"):
        with pytest.raises(ts.UsageError, match="plan must be a Plan"):
            ts.map(abs, [1], plan=ts.Plan("thread", workers, ""))  # type: ignore[arg-type]
    with pytest.raises(ts.UsageError, match="allow must be a tuple"):
        ts.map(abs, [1], allow=None)


def test_explain_leaves_the_rest_of_a_generator_to_its_owner() -> None:
    numbers = (number for number in range(100_000_000))
    plan = ts.explain(abs, numbers)
    assert plan.evidence is not None
    assert next(numbers) == plan.evidence.items


def test_a_check_that_was_not_over_is_no_answer() -> None:
    """The first call ends before there was time to compare what the function carries.

    The second must not stay for that.
    """
    large = list(range(1_000_000))

    def look(number: int) -> int:
        return large[number] + sum(range(30_000))

    with ts.Pool(allow=("serial", "process")) as pool:
        pool.map(look, range(12))
        assert pool._planner._known == {}
        pool.map(look, range(3_000))
        assert "has not been compared yet" not in pool.plan.reason


# --- maps at the top level of a module

MODULE = """
import teamster as ts

def own_name(_):
    import settings_of_field
    return settings_of_field.__name__

with ts.Pool(BACKEND) as pool:
    NAMES = pool.map(own_name, range(3))
    PLAN = pool.plan
"""
SCRIPT = """
import sys, threading
open("settings_of_field.py", "w").write(MODULE.replace("BACKEND", repr(sys.argv[1])))
sys.path.insert(0, ".")
if sys.argv[2] == "thread":
    thread = threading.Thread(target=__import__, args=("settings_of_field",))
    thread.start()
    thread.join()
import settings_of_field
print(settings_of_field.NAMES, settings_of_field.PLAN.choice)
"""


@pytest.mark.parametrize("where", ["main", "thread"])
@pytest.mark.parametrize("backend", ["thread", "auto", "serial"])
def test_a_module_may_map_what_imports_it_back(
    backend: str, where: str, run_script: RunScript
) -> None:
    """A thread would wait for the module, and the module for the thread."""
    script = run_script(f"MODULE = {MODULE!r}" + SCRIPT, backend, where)
    assert (script.returncode, script.stdout, script.stderr) == (
        0,
        f"{['settings_of_field'] * 3} serial\n",
        "",
    )
