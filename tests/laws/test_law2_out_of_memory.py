# SPDX-License-Identifier: BSD-3-Clause
"""Law 2 where memory runs out.

The kernel kills a worker of a real control group, and shared memory has no room.
"""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import psutil
import pytest

import teamster as ts

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="control groups and mount namespaces are Linux's"
)

HUNGRY = """
import os, sys, time, warnings, teamster as ts
open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
def eat(n):
    megabytes = {megabytes}
    held = bytearray(megabytes << 20)
    held[::4096] = b"x" * len(held[::4096])
    time.sleep(0.3)
    return n
with ts.Pool("process", workers=4, retries={retries}) as pool:
    results = pool.map(eat, range(8), on_error="return")
    report = pool.report()
    died = [result for result in results if isinstance(result, ts.WorkerDied)]
    print(len(died), all(results[n] == n for n in range(8) if results[n] not in died))
    print(report.deaths > 0, pool.map(abs, range(-3, 0)))
    print(*died[:1])
"""


def test_a_retry_after_a_death_by_memory_finds_room(
    cgroup: Callable[..., Path], run_script: Callable[..., Any]
) -> None:
    """Trap 13: four items at once do not fit.

    One does, so each is run again with nothing beside it.
    """
    folder = cgroup("memory", "memory.limit_in_bytes", "memory.max", str(400 << 20))
    script = run_script(HUNGRY.format(megabytes="180", retries=1), str(folder), timeout=60)
    assert script.stdout == "0 True\nTrue [3, 2, 1]\n\n"
    assert (script.stderr, script.returncode) == ("", 0)


def test_an_item_that_never_fits_costs_itself(
    cgroup: Callable[..., Path], run_script: Callable[..., Any]
) -> None:
    """Trap 15: it dies alone, too, and the error names the cause with its evidence."""
    folder = cgroup("memory", "memory.limit_in_bytes", "memory.max", str(300 << 20))
    script = run_script(
        HUNGRY.format(megabytes="600 if n == 5 else 1", retries=1), str(folder), timeout=60
    )
    first, second, third = script.stdout.splitlines()
    assert (first, second, script.stderr, script.returncode) == ("1 True", "True [3, 2, 1]", "", 0)
    assert "while it ran item 5 (attempt 2): killed by SIGKILL" in third
    assert "out-of-memory killer struck" in third
    assert "its memory peaked at" in third


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
@pytest.mark.parametrize("options", ["size=64k", "size=64k,noexec", "size=4k,ro"])
def test_a_tiny_dev_shm_changes_nothing(options: str, run_script: Callable[..., Any]) -> None:
    """Trap 28: containers have a /dev/shm of 64 MB, or less; ours is memory without a name."""
    script = run_script(
        "import os, subprocess, sys\n"
        "if len(sys.argv) > 1:\n"
        "    mount = f'mount -t tmpfs -o {sys.argv[1]} tmpfs /dev/shm && exec \"$@\"'\n"
        "    done = subprocess.run(['unshare', '--mount', 'sh', '-c', mount, 'sh', sys.executable, "
        "__file__])\n"
        "    sys.exit(done.returncode)\n"
        "import numpy as np, teamster as ts\n"
        "with ts.Pool('process', workers=2) as pool:\n"
        "    results = pool.map(lambda array: array + 1, (np.full(500_000, n) for n in "
        "range(20)))\n"
        "    print([int(result[-1]) for result in results] == list(range(1, 21)), "
        "os.listdir('/dev/shm'))\n"
        "    print(pool.report().arena_bytes > 100_000_000)\n",
        options,
    )
    if "unshare failed" in script.stderr or "permission denied" in script.stderr:
        pytest.skip("no mount namespace can be made here")
    assert (script.stdout, script.stderr, script.returncode) == ("True []\nTrue\n", "", 0)


def test_no_room_in_shared_memory(run_script: Callable[..., Any]) -> None:
    """Trap 28: in both directions the socket takes over, and a warning says so."""
    script = run_script(
        "import resource, signal, warnings, numpy as np, teamster as ts\n"
        "warnings.simplefilter('always')\n"
        "def limit():\n"
        "    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 1024, resource.RLIM_INFINITY))\n"
        "limit()\n"
        "with warnings.catch_warnings(record=True) as caught, ts.Pool('process', workers=2, "
        "initializer=limit) as pool:\n"
        "    results = pool.map(lambda array: array + 1, (np.full(500_000, n) for n in range(6)))\n"
        "    print([int(result[-1]) for result in results] == list(range(1, 7)), "
        "pool.report().arena_bytes)\n"
        "print({str(warning.message).partition(';')[2] for warning in caught})\n"
    )
    assert (script.stdout, script.stderr, script.returncode) == (
        "True 0\n{' large objects are copied through a socket instead, slower'}\n",
        "",
        0,
    )


@pytest.mark.skipif(psutil.virtual_memory().available < 8 << 30, reason="needs 8 GiB of memory")
def test_more_than_two_gibibytes_move_in_both_directions() -> None:
    """Where lengths are kept in 31 bits, such an object is an error or a hang."""
    with ts.Pool("process", workers=1) as pool:
        (result,) = pool.map(lambda _: numpy.zeros(2**31 + 8, numpy.uint8), [0])
        assert (result.nbytes, int(result[-1])) == (2**31 + 8, 0)
        result[-1] = 7
        assert pool.map(lambda array: (array.nbytes, int(array[-1])), [result]) == [(2**31 + 8, 7)]
        assert pool.map(abs, [-1]) == [1]
