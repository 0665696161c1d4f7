# SPDX-License-Identifier: BSD-3-Clause
"""Law 3, continued: ends in the middle of something, odd programs, calls of a pool that ends."""

import gc
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import teamster as ts

BUSY = """
import os, signal, sys, time, teamster as ts
def run(n):
    print("ready", flush=True)
    time.sleep(60)
def end():
    time.sleep(0.3)
    {end}
import threading
threading.Thread(target=end, daemon=True).start()
ts.map(run, range(6), backend={backend!r}, workers=2)
"""


@pytest.mark.parametrize("backend", ["process", "thread"])
@pytest.mark.parametrize(
    "end", ["os._exit(0)", "os.kill(os.getpid(), signal.SIGSEGV)", "os.abort()"]
)
def test_a_program_that_ends_itself(
    end: str,
    backend: str,
    start_script: Callable[..., Any],
    wait_until: Callable[..., None],
    tmp_path: Path,
) -> None:
    """Trap 27: the parent leaves without any of its own clean-up, from a thread."""
    (tmp_path / "temporary").mkdir()
    script = start_script(
        BUSY.format(end=end, backend=backend), env={"TMPDIR": str(tmp_path / "temporary")}
    )
    script.wait(timeout=10)
    wait_until(lambda: not script.survivors(), seconds=1.0, message="survivors")
    assert os.listdir(tmp_path / "temporary") == []


@pytest.mark.parametrize("count", [1, 2, 3])
def test_ctrl_c_again_and_again(
    count: int, start_script: Callable[..., Any], wait_until: Callable[..., None]
) -> None:
    """Trap 25: a second Ctrl-C during the clean-up of the first."""
    script = start_script(
        "import teamster as ts\n"
        "def run(n):\n    import time\n    print('ready', flush=True)\n    time.sleep(60)\n"
        "ts.map(run, range(6), backend='process', workers=2)\n"
    )
    wait_until(lambda: "ready" in script.stdout, seconds=20)
    for _ in range(count):
        if script.returncode is None:
            script.interrupt()
    script.wait(timeout=3)
    wait_until(lambda: not script.survivors(), seconds=1.0, message="survivors")
    assert script.returncode != 0
    assert "KeyboardInterrupt" in script.stderr


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.1, 0.2])
def test_ctrl_c_while_workers_start(
    delay: float, start_script: Callable[..., Any], wait_until: Callable[..., None]
) -> None:
    """Trap 25: whatever it strikes, the program ends and nothing stays."""
    script = start_script(
        "import teamster as ts\nts.Pool\nprint('ready', flush=True)\n"
        "while True:\n    ts.map(abs, range(9), backend='process', workers=2)\n"
    )
    wait_until(lambda: "ready" in script.stdout, seconds=20)
    time.sleep(delay)  # not a wait for anything: the moments at which to strike
    script.interrupt()
    script.wait(timeout=3)
    wait_until(lambda: not script.survivors(), seconds=1.0, message="survivors")
    assert "KeyboardInterrupt" in script.stderr


def interrupt_soon(seconds: float) -> threading.Thread:
    def strike() -> None:
        time.sleep(seconds)  # not a wait for anything: the moment at which to strike
        os.kill(os.getpid(), signal.SIGINT)

    # Garbage of the tests before, with weak references: Python drops what is raised in a callback
    # of one, and an interrupt that strikes there is lost
    gc.collect()
    thread = threading.Thread(target=strike)
    thread.start()
    return thread


@pytest.mark.parametrize("backend", ["serial", "thread", "process"])
@pytest.mark.parametrize("call", ["map", "imap", "result"])
def test_the_same_pool_works_after_ctrl_c(
    backend: Any, call: str, within: Callable[..., Any]
) -> None:
    """Traps 25 and 42."""
    if backend == "serial" and call == "result":
        pytest.skip("serial futures are done when submit returns")
    with ts.Pool(backend, workers=2) as pool:
        pool.map(abs, range(4))
        with within(1.0), pytest.raises(KeyboardInterrupt):
            thread = interrupt_soon(0.05)
            if call == "map":
                pool.map(lambda n: time.sleep(0.02), range(300))
            elif call == "imap":
                for _ in pool.imap(lambda n: time.sleep(0.02), range(300)):
                    pass
            else:
                pool.submit(time.sleep, 2.0).result()
        thread.join()
        assert pool.map(abs, range(-50, 0)) == list(range(50, 0, -1))


@pytest.mark.parametrize("end", ["close", "terminate"])
@pytest.mark.parametrize("backend", ["thread", "process"])
def test_a_pool_ends_under_a_call_of_another_thread(backend: Any, end: str) -> None:
    """Trap 24: the call ends, with an error that says why, and does not hang."""
    pool = ts.Pool(backend, workers=2)
    started = threading.Event()
    outcome: list[BaseException | list[Any]] = []

    def items() -> Any:
        for number in range(300):
            if number == 2:
                started.set()
            yield number

    def call() -> None:
        try:
            outcome.append(pool.map(lambda n: time.sleep(0.02) or n, items()))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    assert started.wait(10)
    getattr(pool, end)()
    thread.join(8)
    assert not thread.is_alive()
    assert isinstance(outcome[0], ts.PoolClosed) or outcome[0] == list(range(300))


@pytest.mark.parametrize("end", ["close", "terminate"])
@pytest.mark.parametrize("backend", ["serial", "thread", "process"])
def test_a_pool_ends_under_its_stream(backend: Any, end: str, within: Callable[..., Any]) -> None:
    """Trap 24: close after partial consumption."""
    pool = ts.Pool(backend, workers=2)
    results = pool.imap(abs, iter(range(100_000)))
    assert [next(results), next(results)] == [0, 1]
    with within(3):
        getattr(pool, end)()
        with pytest.raises(ts.PoolClosed):
            list(results)


@pytest.mark.parametrize("backend", ["serial", "thread", "process"])
def test_a_pool_that_was_never_used(backend: Any) -> None:
    with ts.Pool(backend, workers=2):
        pass
    ts.Pool(backend, workers=2).terminate()
    del_me = ts.Pool(backend, workers=2)
    del del_me


@pytest.mark.parametrize("backend", ["serial", "thread", "process"])
def test_a_pool_without_a_name_lives_as_long_as_its_futures(backend: Any) -> None:
    """Trap 17."""
    assert ts.Pool(backend, workers=1).submit(abs, -3).result(timeout=10) == 3
    futures = [ts.Pool(backend, workers=1).submit(abs, -number) for number in range(3)]
    assert [future.result(timeout=10) for future in futures] == [0, 1, 2]


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_a_call_that_nobody_waits_for_is_done(
    backend: Any, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """Neither the pool nor the future has a name.

    The pool ends in the thread that reads the answer.
    """
    ts.Pool(backend, workers=1).submit((tmp_path / "done").touch)
    wait_until((tmp_path / "done").exists, seconds=10)


@pytest.mark.parametrize("backend", ["serial", "thread", "process"])
@pytest.mark.parametrize("end", ["close", "terminate"])
def test_a_callback_ends_its_pool(backend: Any, end: str) -> None:
    """The callback runs in the middle of the reading of an answer."""
    pool = ts.Pool(backend, workers=1)
    ended = threading.Event()
    first = pool.submit(time.sleep, 0.02)
    others = [] if backend == "serial" else [pool.submit(time.sleep, 0.5) for _ in range(3)]
    first.add_done_callback(lambda _: (getattr(pool, end)(), ended.set()))
    assert first.result(timeout=10) is None
    if end == "terminate":
        assert ended.wait(10)
        assert all(isinstance(future.exception(timeout=10), ts.PoolClosed) for future in others)
    pool.terminate()


def test_terminate_ends_who_reads_for_open_futures(within: Callable[..., Any]) -> None:
    """The reader of futures polled when the pool was ended, and woke its ender only after 1 s."""
    pool = ts.Pool("process", workers=2)
    futures = [pool.submit(time.sleep, 30) for _ in range(4)]
    assert pool.submit(abs, -1).cancel()
    with within(0.9):
        pool.terminate()
    assert all(isinstance(future.exception(), ts.PoolClosed) for future in futures)


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_a_callback_may_wait_for_its_pool(backend: Any) -> None:
    """It runs without any lock of ours, and others lead meanwhile."""
    with ts.Pool(backend, workers=2) as pool:
        results: list[list[int]] = []
        future = pool.submit(time.sleep, 0.05)
        future.add_done_callback(lambda _: results.append(pool.map(abs, range(3))))
        future.result(timeout=10)
    assert results == [[0, 1, 2]]


def test_a_callback_of_the_only_thread_that_waits_for_its_pool_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It would wait for itself."""
    with ts.Pool("thread", workers=1) as pool:
        future = pool.submit(time.sleep, 0.05)
        future.add_done_callback(lambda _: pool.map(abs, range(3)))
        future.result(timeout=10)
    assert "open another pool" in caplog.text


@pytest.mark.parametrize("backend", ["serial", "thread", "process"])
def test_a_callback_submits_the_next_call(backend: Any) -> None:
    with ts.Pool(backend, workers=1) as pool:
        chain: list[Any] = []
        done = threading.Event()

        def follow(future: Any) -> None:
            chain.append(future.result())
            if len(chain) < 5:
                pool.submit(abs, -len(chain)).add_done_callback(follow)
            else:
                done.set()

        pool.submit(abs, -0).add_done_callback(follow)
        assert done.wait(10)
    assert chain == [0, 1, 2, 3, 4]


ENDINGS = {
    "global in __del__": "class Holder:\n    def __del__(self): pool.terminate()\n"
    "holder = Holder()",
    "submit in atexit": "import atexit\n"
    "def late():\n    try: print(pool.submit(abs, -1).result(5))\n"
    "    except Exception as error: print(type(error).__name__)\n"
    "atexit.register(late)",
    "open futures": "future = pool.submit(time.sleep, 0.2)",
    "open stream": "results = pool.imap(abs, iter(range(10**9))); next(results)",
    "in a daemon thread": "import threading\n"
    "threading.Thread(target=lambda: pool.map(time.sleep, [0.1] * 100), daemon=True).start(); "
    "time.sleep(0.2)",
    "in a daemon thread that has time for its last words": "import threading\n"
    "thread = threading.Thread(target=pool.map, args=(time.sleep, [0.1] * 100), daemon=True)\n"
    "first.append(thread.join); thread.start(); time.sleep(0.2)",
    "sys.exit in the block": "with pool: sys.exit(0)",
}


@pytest.mark.parametrize("backend", ["thread", "process"])
@pytest.mark.parametrize("name", ENDINGS)
def test_the_interpreter_ends(
    name: str, backend: str, run_script: Callable[..., Any], wait_until: Callable[..., None]
) -> None:
    """Trap 30: quickly, with exit code 0, and without a word on stderr."""
    script = run_script(
        "import atexit, sys, time, teamster as ts\nfirst = []\n"
        # The first that is registered is the last that is called
        "atexit.register(lambda: [call() for call in first])\n"
        f"pool = ts.Pool({backend!r}, workers=2)\n"
        "pool.map(abs, [-1])\n"
        f"import os; began = time.monotonic()\n{ENDINGS[name]}\n",
        timeout=6,
    )
    assert (script.stderr, script.returncode) == ("", 0)
    wait_until(lambda: not script.survivors(), seconds=1.0, message="survivors")


@pytest.mark.parametrize("closed", [[0], [1], [2], [0, 1, 2]])
def test_a_program_without_standard_streams(
    closed: list[int], run_script: Callable[..., Any], tmp_path: Any
) -> None:
    """Trap 35: a daemon that has closed them; what is opened next gets their numbers."""
    script = run_script(
        f"import os, sys\nfor number in {closed}: os.close(number)\n"
        "import teamster as ts\n"
        "with ts.Pool('process', workers=2) as pool:\n"
        "    results = pool.map(lambda n: print('x') or n * n, range(20))\n"
        "open(sys.argv[1], 'w').write(str(results == [n * n for n in range(20)]))\n"
        "os._exit(0)\n",
        str(tmp_path / "answer"),
    )
    assert (script.stderr, script.returncode) == ("", 0)
    assert (tmp_path / "answer").read_text() == "True"


def test_workers_read_no_standard_input(run_script: Callable[..., Any]) -> None:
    """Trap 35: it is the program's own."""
    script = run_script(
        "import sys, teamster as ts\n"
        "print(ts.map(lambda n: sys.stdin.read() if sys.stdin else '', range(2), "
        "backend='process', workers=2))\n"
        "print(input())\n",
        stdin="for the program\n",
    )
    assert script.stdout == "['', '']\nfor the program\n"


@pytest.mark.parametrize("method", ["forkserver", "spawn", "fork"])
def test_text_before_the_start_appears_once(method: str, run_script: Callable[..., Any]) -> None:
    """Trap 35: what waits in a buffer is not written again by every copy of it."""
    script = run_script(
        "import sys, teamster as ts\n"
        "sys.stdout.write('no end of line'); sys.stderr.write('')\n"
        f"ts.map(abs, range(9), backend='process', workers=2, start_method={method!r})\n"
    )
    assert (script.stdout, script.stderr, script.returncode) == ("no end of line", "", 0)
