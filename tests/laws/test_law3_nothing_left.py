# SPDX-License-Identifier: BSD-3-Clause
"""Law 3: however it ends, nothing is left behind, and nothing unasked for is said on stderr."""

import contextlib
import gc
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

import teamster as ts

IDLE = """
import time, teamster as ts
pool = ts.Pool("process", workers=2)
pool.map(abs, range(5))
print("ready", flush=True)
time.sleep(60)
"""
BUSY = """
import teamster as ts
def run(n):
    print("ready", flush=True)
    import time; time.sleep(60)
ts.map(run, range(6), backend="process", workers=2)
"""
NATIVE = """
import ctypes, teamster as ts
def run(n):
    print("ready", flush=True)
    # Holds the GIL: no signal handler and no thread of its own could end this worker
    ctypes.PyDLL(None).sleep(60)
ts.map(run, range(6), backend="process", workers=2)
"""
STREAM = """
import itertools, time, teamster as ts
for n in ts.imap(abs, itertools.count(), backend="process", workers=2):
    if n == 5: print("ready", flush=True)
    time.sleep(0.001)
"""
FUTURE = """
import time, teamster as ts
pool = ts.Pool("process", workers=2)
future = pool.submit(time.sleep, 60)
print("ready", flush=True)
future.result()
"""
CHILD = """
import subprocess, teamster as ts
def run(n):
    child = subprocess.Popen(["sleep", "60"])
    print("ready", flush=True)
    child.wait()
ts.map(run, range(2), backend="process", workers=2)
"""
THREADS = BUSY.replace('"process"', '"thread"')
FORK = BUSY.replace('"process"', '"process", start_method="fork"')
SPAWN = BUSY.replace('"process"', '"process", start_method="spawn"')
STARTED_IN_A_THREAD = """
import threading, time, teamster as ts
pool = ts.Pool("process", workers=2)
thread = threading.Thread(target=lambda: pool.map(abs, range(5))); thread.start(); thread.join()
# Trap 27: the death of the thread that started them is not their parent's
assert pool.map(abs, range(5)) == list(range(5))
print("ready", flush=True)
time.sleep(60)
"""
SPAWNED = """
import teamster as ts
def run():
    print("ready", flush=True)
    import time; time.sleep(60)
ts.spawn(run).join()
"""
SPAWNED_AND_LEFT = """
import time, teamster as ts
def run():
    ts.parent().send("ready")
    time.sleep(60)
process = ts.spawn(run)
print(process.recv(), flush=True)
time.sleep(60)
"""
PROGRAMS = {
    "idle": IDLE,
    "busy": BUSY,
    "native": NATIVE,
    "stream": STREAM,
    "future": FUTURE,
    "child": CHILD,
    "threads": THREADS,
    "fork": FORK,
    "spawn": SPAWN,
    "thread start": STARTED_IN_A_THREAD,
    "spawned": SPAWNED,
    "spawned and left": SPAWNED_AND_LEFT,
}


@pytest.mark.parametrize("end", ["SIGKILL", "SIGTERM", "SIGINT", "SIGINT to the group"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_that_is_ended(
    name: str, end: str, start_script: Callable[..., Any], wait_until: Callable[..., None]
) -> None:
    """Traps 25 and 27."""
    script = start_script(PROGRAMS[name])
    wait_until(lambda: "ready" in script.stdout, seconds=20)
    if end == "SIGINT to the group":
        script.interrupt()
    else:
        script.send_signal(getattr(signal, end))
    script.wait(timeout=3)
    wait_until(lambda: not script.survivors(), seconds=1.0, message="survivors")
    if end.startswith("SIGINT"):
        assert script.stderr.count("KeyboardInterrupt") == 1
        assert script.stderr.count('  File "') <= 6
    else:
        assert script.stderr == ""


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.03, 0.06, 0.1])
def test_killed_while_workers_start(
    delay: float, start_script: Callable[..., Any], wait_until: Callable[..., None]
) -> None:
    """Trap 27: the race with the start."""
    script = start_script(
        "print('ready', flush=True)\nimport teamster as ts\n"
        "while True: ts.map(abs, range(9), backend='process', workers=2)"
    )
    wait_until(lambda: "ready" in script.stdout, seconds=20)
    time.sleep(delay)  # not a wait for anything: the moments at which to strike
    script.send_signal(signal.SIGKILL)
    script.wait(timeout=3)
    wait_until(lambda: not script.survivors(), seconds=1.0, message="survivors")
    assert script.stderr == ""


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_a_pool_that_is_never_closed(
    backend: str,
    run_script: Callable[..., Any],
    within: Callable[..., Any],
    wait_until: Callable[..., Any],
) -> None:
    """Trap 30."""
    with within(5):
        script = run_script(
            f"import teamster as ts\npool = ts.Pool({backend!r}, workers=2)\n"
            "print(pool.map(abs, [-1]), pool.submit(abs, -2).result())"
        )
    assert (script.stdout, script.stderr, script.returncode) == ("[1] 2\n", "", 0)
    wait_until(lambda: not script.survivors(), seconds=1.0, message="survivors")


def test_ctrl_c_between_two_nexts() -> None:
    results = ts.imap(abs, iter(range(10**9)), backend="process", workers=2)
    with pytest.raises(KeyboardInterrupt):
        for result in results:
            if result == 10:
                raise KeyboardInterrupt
    results.close()
    assert not busy_workers()


def test_an_interrupted_worker_takes_no_next_item(
    tmp_path: Any, start_script: Callable[..., Any], wait_until: Callable[..., None]
) -> None:
    """Trap 26."""
    script = start_script(
        "import sys, time, teamster as ts\n"
        "def run(n):\n    open(sys.argv[1], 'a').write(f'{n} ')\n    time.sleep(0.2)\n"
        "ts.map(run, range(100), backend='process', workers=2)",
        str(tmp_path / "ran"),
    )
    wait_until(lambda: (tmp_path / "ran").exists(), seconds=20)
    script.interrupt()
    script.wait(timeout=3)
    wait_until(lambda: not script.survivors(), seconds=1.0)
    assert len((tmp_path / "ran").read_text().split()) <= 4


def busy_workers() -> list[psutil.Process]:
    """Those of this process; what ends in the middle of the look is not busy."""
    found: list[psutil.Process] = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            found += child.children() if "forkserver" in " ".join(child.cmdline()) else []
    return found


@pytest.mark.parametrize("leave", ["return", "raise", "break", "drop"])
def test_workers_end_with_their_call(leave: str, wait_until: Callable[..., None]) -> None:
    if leave == "return":
        ts.map(abs, range(9), backend="process", workers=2)
    elif leave == "raise":
        with pytest.raises(ZeroDivisionError):
            ts.map(lambda n: 1 // n, range(9), backend="process", workers=2)
    else:
        results = ts.imap(
            lambda n: n or time.sleep(0.01), iter(range(10**9)), backend="process", workers=2
        )
        for _ in results:
            break
        if leave == "drop":
            del results
        else:
            results.close()
    wait_until(lambda: not busy_workers(), seconds=1.0)


def test_many_pools_leave_nothing(wait_until: Callable[..., None]) -> None:
    """200 pools; no descriptor, thread, process or memory more than after the first few."""
    me = psutil.Process()

    def use(backend: str, count: int) -> None:
        for number in range(count):
            with ts.Pool(backend, workers=2) as pool:  # type: ignore[arg-type]
                assert pool.map(abs, [-number]) == [number]
                if number % 10 == 0:
                    assert pool.submit(abs, -1).result() == 1

    use("process", 5)
    use("thread", 5)
    gc.collect()
    before = me.num_fds(), threading.active_count(), me.memory_info().rss
    use("process", 100)
    use("thread", 100)
    gc.collect()
    wait_until(lambda: not busy_workers(), seconds=2.0)
    assert me.num_fds() <= before[0]
    assert threading.active_count() <= before[1]
    assert me.memory_info().rss - before[2] < 8 * 2**20


def test_close_and_terminate_are_final_and_may_be_repeated() -> None:
    """Trap 24."""
    for backend in ("serial", "thread", "process"):
        pool = ts.Pool(backend, workers=2)  # type: ignore[arg-type]
        results = pool.imap(abs, iter(range(1_000)))
        next(results)
        pool.close()
        pool.close()
        pool.terminate()
        for call in (lambda pool=pool: pool.map(abs, [1]), lambda pool=pool: pool.submit(abs, 1)):
            with pytest.raises(ts.PoolClosed):
                call()  # type: ignore[no-untyped-call]
        results.close()


def test_memory_comes_back_while_results_are_consumed() -> None:
    """Trap 38: neither side keeps what the consumer has dropped."""
    numpy = pytest.importorskip("numpy")
    me = psutil.Process()
    with ts.Pool("process", workers=2) as pool:
        for _ in pool.imap(lambda n: numpy.full(1_000_000, n), range(6)):
            pass
        before = me.memory_info().rss
        for _ in pool.imap(lambda n: numpy.full(1_000_000, n), range(60)):
            pass
        assert me.memory_info().rss - before < 64 * 2**20
        kept = pool.map(lambda n: numpy.full(1_000_000, n), range(4))
    gc.collect()
    assert [int(array[-1]) for array in kept] == [0, 1, 2, 3]  # trap 29: results outlive the pool


def test_a_program_waits_at_its_end_for_what_it_has_spawned(
    run_script: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    script = run_script(
        "import teamster as ts\ndef save():\n    import time; time.sleep(0.3); print('saved')\n"
        "ts.spawn(save)\nprint('end')"
    )
    assert (script.stdout, script.stderr, script.returncode) == ("end\nsaved\n", "", 0)
    wait_until(lambda: not script.survivors(), seconds=1.0, message="survivors")


def test_daemons_and_whatever_runs_when_a_program_fails_end_with_it(
    run_script: Callable[..., Any], within: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    start = "import time, teamster as ts\nprocess = ts.spawn(time.sleep, 60)\n"
    with within(8):
        script = run_script(start + "process.daemon = True")
    assert (script.stderr, script.returncode) == ("", 0)
    wait_until(lambda: not script.survivors(), seconds=1.0, message="survivors")
    with within(8):
        script = run_script(start + "raise KeyError('a mistake')")
    assert script.stderr.count("KeyError: 'a mistake'") == 1
    assert script.stderr.count("Traceback") == 1
    wait_until(lambda: not script.survivors(), seconds=1.0, message="survivors")


def test_an_error_of_a_spawned_process_is_said_when_a_program_ends(
    run_script: Callable[..., Any],
) -> None:
    script = run_script(
        "import teamster as ts\ndef fail(): raise ValueError('lost')\n"
        "process = ts.spawn(fail)\nprocess.join()"
    )
    # The worker's traceback, and the error itself
    assert script.stderr.count("ValueError: lost") == 2
    assert "nobody has asked for its result" in script.stderr


def test_messages_that_nobody_receives_hold_up_no_end(
    run_script: Callable[..., Any], within: Callable[..., Any]
) -> None:
    with within(10):
        script = run_script(
            "import teamster as ts\n"
            "p = ts.spawn(lambda: [ts.parent().send('x' * 1000) for _ in range(5000)])"
        )
    assert (script.stderr, script.returncode) == ("", 0)


def test_who_waits_for_a_message_at_the_end_of_a_program_is_told_that_none_will_come(
    run_script: Callable[..., Any],
) -> None:
    script = run_script(
        "import teamster as ts\ndef wait():\n    try: ts.parent().recv()\n"
        "    except EOFError: print('told')\nts.spawn(wait)"
    )
    assert (script.stdout, script.stderr, script.returncode) == ("told\n", "", 0)


@pytest.mark.skipif(
    sys.version_info[:2] == (3, 12),
    reason="Python 3.12 starts no thread once its main thread has ended",
)
def test_threads_of_a_program_go_on_with_what_it_has_spawned(
    run_script: Callable[..., Any],
) -> None:
    script = run_script(
        "import threading, time, teamster as ts\n"
        "def work():\n"
        "    process = ts.spawn(lambda: ts.parent().send(ts.parent().recv() + 1))\n"
        "    process.daemon = True\n"
        "    time.sleep(0.3)\n"
        "    process.send(1); print(process.recv()); print(ts.spawn(abs, -3).result())\n"
        "threading.Thread(target=work).start()"
    )
    assert (script.stdout, script.stderr, script.returncode) == ("2\n3\n", "", 0)


def test_a_closed_output_of_the_program_ends_no_process(run_script: Callable[..., Any]) -> None:
    script = run_script(
        "import sys, teamster as ts\n"
        "one, other = ts.spawn(lambda: ts.parent().recv() or 1), "
        "ts.spawn(lambda: ts.parent().recv() or print('x') or 2)\n"
        "sys.stdout.close()\n"
        "for each in (other, one):\n"
        "    each.send(None)\n"
        "    try: each.join()\n"
        "    except ValueError: each.join()\n"
        "print(one.result(), other.result(), file=sys.stderr)"
    )
    assert (script.stderr, script.returncode) == ("1 2\n", 0)
