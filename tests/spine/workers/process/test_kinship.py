# SPDX-License-Identifier: BSD-3-Clause
"""A worker in the eyes of multiprocessing."""

from __future__ import annotations

import multiprocessing
import os

import pytest

import teamster as ts
from tests.conftest import RunScript

METHODS = ["forkserver", "spawn"]


def kin(_: object) -> tuple[object, ...]:
    current, parent = multiprocessing.current_process(), multiprocessing.parent_process()
    assert parent is not None
    return (
        current.name,
        current._identity,
        current.daemon,
        parent.pid,
        parent.name,
        parent.is_alive(),
    )


@pytest.mark.parametrize("start_method", METHODS)
def test_it_is_a_named_daemon_with_a_parent(start_method: str) -> None:
    with ts.Pool("process", workers=2, start_method=start_method) as pool:
        found = set(pool.map(kin, range(8), chunksize=1))
    names = {f"TeamsterWorker-{number}": (number,) for number in (1, 2)}
    assert found
    for name, identity, *rest in found:
        assert names[str(name)] == identity
        assert rest == [True, os.getpid(), "MainProcess", True]


PROXIES = """
import multiprocessing
import teamster as ts

def put(box, n):
    box[n] = n * n

if __name__ == "__main__":
    with multiprocessing.Manager() as manager:
        box = manager.dict()
        ts.starmap(put, [(box, n) for n in range(3)], backend="process", workers=2)
        ts.map(lambda n: put(box, n), range(3, 6), backend="process", workers=2)
        with ts.Pool("process", workers=2, initializer=put, initargs=(box, 6)) as pool:
            pool.map(abs, [0])
        assert dict(box) == {n: n * n for n in range(7)}
"""


def test_proxies_of_a_manager_work_wherever_they_stand(run_script: RunScript) -> None:
    script = run_script(PROXIES)
    assert (script.returncode, script.stderr) == (0, "")


def child_of_a_task(n: int) -> int:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return int(pool.apply(abs, (-n,)))


def test_a_task_may_have_children() -> None:
    assert ts.map(child_of_a_task, [1, 2], backend="process", workers=2) == [1, 2]


LOGGED = """
import logging, multiprocessing, sys
multiprocessing.set_start_method("spawn")
logging.basicConfig(format="%(processName)s %(message)s", stream=sys.stdout)
import teamster as ts

def work(n):
    logging.warning("%s", multiprocessing.get_start_method())

ts.map(work, [0], backend="process", workers=1)
"""


def test_log_records_name_it_and_it_starts_processes_as_the_program_does(
    run_script: RunScript,
) -> None:
    assert run_script(LOGGED).stdout == "TeamsterWorker-1 spawn\n"
