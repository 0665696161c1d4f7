# SPDX-License-Identifier: BSD-3-Clause
"""Exit handlers, and threads that are no daemons, have time; but not without end."""

from __future__ import annotations

import pytest

from tests.conftest import RunScript

LEAVES = """
import atexit, multiprocessing.util, sys, threading, time
import teamster as ts
from teamster.spine.workers.process import children

def late(word, seconds):
    time.sleep(seconds)
    print(word)

def work(seconds):
    atexit.register(late, "handler", seconds)
    multiprocessing.util.Finalize(None, late, args=("finalizer", 0), exitpriority=1)
    threading.Thread(target=late, args=("thread", seconds)).start()

children._LEAVE_S = float(sys.argv[3])
ts.map(work, [float(sys.argv[2])], backend="process", workers=1, start_method=sys.argv[1])
print("over")
"""


@pytest.mark.parametrize("start_method", ["forkserver", "spawn", "fork"])
def test_a_worker_ends_as_a_program_does(run_script: RunScript, start_method: str) -> None:
    script = run_script(LEAVES, start_method, "0.6", "20")
    assert (script.stdout.split(), script.stderr) == (
        ["thread", "handler", "finalizer", "over"],
        "",
    )


def test_one_that_does_not_end_is_ended_with_a_line(run_script: RunScript) -> None:
    script = run_script(LEAVES, "forkserver", "60", "0.3")
    assert script.stdout == "over\n"
    assert "RuntimeWarning: teamster: worker 0 was ended 0.3 s after its last task" in script.stderr
    assert not script.survivors()
