# SPDX-License-Identifier: BSD-3-Clause
"""Spawned processes in programs like those people have written with `multiprocessing.Process`."""

import logging
import multiprocessing
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import teamster as ts
from tests.tasks.targets import me

# --- programs like those of others


def test_environments_of_reinforcement_learning() -> None:
    """The loop of the vector environments in many libraries.

    Commands in, observations out, a close at the end.
    """

    def environment(seed: int) -> None:
        state = np.full(4, float(seed))
        while True:
            command, data = me().recv()
            if command == "step":
                state = state + data
                me().send((state, float(state.sum()), False))
            elif command == "reset":
                state = np.full(4, float(seed))
                me().send(state)
            else:
                break

    environments = [ts.spawn(environment, seed) for seed in range(3)]
    for each in environments:
        each.send(("reset", None))
    assert [each.recv()[0] for each in environments] == [0.0, 1.0, 2.0]
    for _ in range(20):
        for each in environments:
            each.send(("step", 1.0))
        rewards = [each.recv()[1] for each in environments]
    assert rewards == [80.0, 84.0, 88.0]
    for each in environments:
        each.send(("close", None))
        each.join()
    assert [each.exitcode for each in environments] == [0, 0, 0]


QUEUES = """
import multiprocessing, teamster as ts
context = multiprocessing.get_context("forkserver")
queue, results = context.Queue(), context.Queue()
def work(queue, results):
    for number in iter(queue.get, None):
        results.put(number * number)
processes = [ts.spawn(work, queue, results) for _ in range(2)]
for number in [*range(20), None, None]:
    queue.put(number)
print(sum(results.get() for _ in range(20)))
for process in processes:
    process.join()
print([process.exitcode for process in processes])
"""
LOCKS = """
import multiprocessing, teamster as ts
context = multiprocessing.get_context("forkserver")
lock, counter, stop = context.Lock(), context.Value("i", 0), context.Event()
ours, theirs = context.Pipe()
def count(lock, counter, stop, pipe):
    for _ in range(100):
        with lock:
            counter.value += 1
    with lock:
        pipe.send("counted")
    stop.wait()
with ts.spawn(count, lock, counter, stop, theirs), ts.spawn(count, lock, counter, stop, theirs):
    print(ours.recv(), ours.recv())
    stop.set()
print(counter.value)
"""


@pytest.mark.parametrize(
    ("program", "said"),
    [(QUEUES, "2470\n[0, 0]\n"), (LOCKS, "counted counted\n200\n")],
    ids=["queue", "lock"],
)
def test_objects_of_multiprocessing(
    program: str, said: str, run_script: Callable[..., Any], wait_until: Callable[..., None]
) -> None:
    script = run_script(program)
    assert (script.stdout, script.stderr, script.returncode) == (said, "", 0)
    wait_until(lambda: not script.survivors())  # multiprocessing's own resource tracker among them


def test_a_process_that_maps_and_spawns_itself() -> None:
    def work() -> tuple[list[int], int]:
        return ts.map(abs, [-1, -2], backend="process", workers=2), ts.spawn(abs, -3).result()

    assert ts.spawn(work).result() == ([1, 2], 3)


def test_a_process_of_multiprocessing_in_a_spawned_one() -> None:
    def work() -> int | None:
        child = multiprocessing.get_context("fork").Process(target=int)
        child.start()
        child.join()
        return child.exitcode

    assert ts.spawn(work).result() == 0


def test_prints_logs_and_warnings_come_out_of_the_program(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def say() -> None:
        print("printed")
        logging.getLogger("spawned").warning("logged")
        warnings.warn("warned", UserWarning, stacklevel=1)

    with caplog.at_level(logging.WARNING), pytest.warns(UserWarning, match="warned"):
        ts.spawn(say).join()
    assert capsys.readouterr().out == "printed\n"
    assert [record.getMessage() for record in caplog.records] == ["logged"]


def test_a_process_is_started_from_a_thread() -> None:
    results: list[int] = []
    threads = [
        threading.Thread(target=lambda n=n: results.append(ts.spawn(abs, -n).result()))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(8))


def test_many_processes_one_after_the_other_and_at_once() -> None:
    assert [ts.spawn(abs, -number).result() for number in range(30)] == list(range(30))
    processes = [ts.spawn(abs, -number) for number in range(20)]
    assert [process.result() for process in processes] == list(range(20))


# --- seen from outside


def test_the_call_is_a_lane_of_the_timeline() -> None:
    def work() -> None:
        with ts.span("inside"):
            time.sleep(0.01)

    with ts.record() as recording, ts.spawn(work):
        pass
    lanes = {
        lane.label: lane for lane in recording.timeline.lanes if lane.label.startswith("spawn")
    }
    assert len(lanes) == 1
    (lane,) = lanes.values()
    names = {recording.timeline.names[row[4]] for row in lane.spans.rows()}
    assert any("work" in name for name in names)
    assert "inside" in names


def test_the_snapshot_shows_what_runs() -> None:
    from teamster.tasks.monitor.snapshot import take_snapshot

    process = ts.spawn(time.sleep, 60)
    pid = process.pid
    (pool,) = [pool for pool in take_snapshot()["pools"] if pool["title"].startswith("spawn")]
    (worker,) = pool["workers"]
    assert (worker["pid"], worker["function"], worker["state"]) == (pid, "sleep", "running")
    process.kill()
    process.join()
    assert not [pool for pool in take_snapshot()["pools"] if pool["title"].startswith("spawn")]


def test_its_text_says_how_it_is() -> None:
    process = ts.spawn(time.sleep, 60)
    assert repr(process) == f"<Process 'sleep', pid {process.pid}, runs>"
    process.kill()
    process.join()
    assert repr(process) == f"<Process 'sleep', pid {process.pid}, ended with exit code -9>"
