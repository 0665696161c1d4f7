# SPDX-License-Identifier: BSD-3-Clause
"""Law 6: workers times inner threads stays within the CPU budget.

Affinity mask and the quota of every cgroup above.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import teamster as ts

COUNT = """
import os, sys
{before}
import teamster as ts
def inner(_):
    import numpy, time, threadpoolctl
    numpy.ones((64, 64)) @ numpy.ones((64, 64))
    time.sleep(0.05)
    limits = [library["num_threads"] for library in threadpoolctl.threadpool_info()]
    return os.environ.get("OMP_NUM_THREADS"), max(limits)
with ts.Pool({backend!r}, workers={workers}) as pool:
    seen = pool.map(inner, range(8))
    print(pool.report().workers, *sorted(set(seen))[-1], ts.Machine.detect().usable_cores)
"""


def test_process_workers_share_the_cores(run_script: Callable[..., Any]) -> None:
    """Trap 32: the variables stand in the worker before any library loads."""
    cores = ts.Machine.detect().usable_cores
    script = run_script(COUNT.format(before="", backend="process", workers=None))
    assert script.stderr == ""
    assert script.stdout.split() == [str(cores), "1", "1", str(cores)]


def test_one_worker_may_use_all_of_them(run_script: Callable[..., Any]) -> None:
    cores = ts.Machine.detect().usable_cores
    script = run_script(COUNT.format(before="", backend="process", workers=1))
    assert script.stdout.split() == ["1", str(cores), str(cores), str(cores)]


def test_thread_workers_limit_what_is_loaded(run_script: Callable[..., Any]) -> None:
    """Before the first task.

    What a task itself loads follows before its worker's next batch (so this test failed once in
    ten).
    """
    script = run_script(COUNT.format(before="import numpy", backend="thread", workers=16))
    assert script.stderr == ""
    assert script.stdout.split()[2] == "1"


def test_a_smaller_number_of_the_users_stays(run_script: Callable[..., Any]) -> None:
    script = run_script(
        COUNT.format(before="", backend="process", workers=1), env={"OMP_NUM_THREADS": "1"}
    )
    assert script.stdout.split()[:2] == ["1", "1"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs affinity masks")
def test_affinity(run_script: Callable[..., Any]) -> None:
    """Trap 33."""
    cpu = min(os.sched_getaffinity(0))
    script = run_script(
        COUNT.format(before=f"os.sched_setaffinity(0, {{{cpu}}})", backend="process", workers=None)
    )
    assert script.stdout.split() == ["1", "1", "1", "1"]


@pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="half a core more than one needs two")
def test_a_fractional_quota_of_a_real_cgroup(
    cgroup: Callable[..., Path], run_script: Callable[..., Any]
) -> None:
    """Trap 33: 150% of a core are one worker, rounded down."""
    quota = "150000" if Path("/sys/fs/cgroup/cpu").is_dir() else "150000 100000"
    folder = cgroup("cpu", "cpu.cfs_quota_us", "cpu.max", quota)
    join = f"open('{folder}/cgroup.procs', 'w').write(str(os.getpid()))"
    script = run_script(COUNT.format(before=join, backend="process", workers=None))
    assert (script.stderr, script.stdout.split()) == ("", ["1", "1", "1", "1"])


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_nested_calls_start_nothing(backend: Any) -> None:
    """Trap 31: inside a worker the default is serial, three levels deep.

    Asking explicitly works.
    """

    def deep(level: int) -> list[str]:
        import teamster as ts

        info = ts.current_worker()
        assert info is not None
        return [info.kind, *(ts.map(deep, [level - 1])[0] if level else [])]

    assert ts.map(deep, [2, 2], backend=backend) == [[backend, "serial", "serial"]] * 2
    inside = ts.map(
        lambda _: ts.map(lambda _: os.getpid(), range(4), backend="process", workers=2),
        [0],
        backend=backend,
    )[0]
    assert os.getpid() not in inside


def test_a_program_counts_its_processes(run_script: Callable[..., Any]) -> None:
    """Trap 31: every level asks for a map, and there are no more workers than cores."""
    script = run_script(
        "import os, time, psutil, teamster as ts\n"
        "def work(n):\n"
        "    time.sleep(0.02)\n"
        "    return set(ts.map(lambda _: os.getpid(), range(3)))\n"
        "with ts.Pool('process') as pool:\n"
        "    pids = set().union(*pool.map(work, range(12)))\n"
        "    below = psutil.Process().children(recursive=True)  # the workers and the fork server\n"
        "    print(len(pids) <= ts.Machine.detect().usable_cores, len(below) - 1 == len(pids))\n"
    )
    assert (script.stdout, script.stderr) == ("True True\n", "")
