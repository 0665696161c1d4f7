# SPDX-License-Identifier: BSD-3-Clause
"""Forks beside threads of ours."""

from __future__ import annotations

from tests.conftest import RunScript

BESIDE = """
import os, signal, sys, time
import teamster as ts

def die(n):
    os.kill(os.getpid(), signal.SIGKILL) if n == 3 else None
    return n

def hang(n):
    time.sleep(60 if n == 3 else 0)
    return n

def outcomes(pool, function):
    futures = [pool.submit(function, n) for n in range(6)]
    errors = [future.exception(timeout=30) for future in futures]
    return [type(error).__name__ if error else n for n, error in enumerate(errors)]

with ts.record(sys.argv[1]):
    with ts.Pool("process", workers=2, start_method="fork") as pool:
        assert [pool.submit(abs, -n).result(timeout=30) for n in range(6)] == list(range(6))
        assert outcomes(pool, die) == [0, 1, 2, "WorkerDied", 4, 5]
    with ts.Pool("process", workers=2, start_method="fork", max_tasks_per_worker=2) as pool:
        assert outcomes(pool, abs) == list(range(6))
    with ts.Pool("process", workers=2, start_method="fork", timeout=0.5) as pool:
        assert outcomes(pool, hang) == [0, 1, 2, "TaskTimeout", 4, 5]
"""


def test_futures_and_a_recording_need_no_other_start_method(
    run_script: RunScript, tmp_path: object
) -> None:
    script = run_script(BESIDE, f"{tmp_path}/run.html", timeout=60)
    assert (script.returncode, script.stderr) == (0, "")
