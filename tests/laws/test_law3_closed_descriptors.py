# SPDX-License-Identifier: BSD-3-Clause
"""A program that closes every descriptor, as daemons do.

The next call starts afresh, and the program's own files stay open.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import RunScript, StartScript, WaitUntil

DAEMON = """
import os, select, sys, tempfile
import teamster as ts

backend, way = sys.argv[1:]
pool = ts.Pool(backend, workers=2)
assert pool.map(abs, range(-3, 1)) == [3, 2, 1, 0]
assert pool.submit(abs, -5).result() == 5
results = pool.imap(abs, range(-500, 0)) if way == "in the middle" else iter([])
first = next(results, None)
os.closerange(3, 256)
files = [tempfile.TemporaryFile("w+", buffering=1) for _ in range(40)]
polls = [select.epoll() for _ in range(3)]  # which look alike
if way == "submit":
    assert pool.submit(abs, -5).result(timeout=20) == 5
if way == "close":
    pool.close()
else:
    assert len(list(results)) == (499 if first else 0)
    assert pool.map(abs, range(-3, 1)) == [3, 2, 1, 0]
    assert pool.submit(abs, -6).result(timeout=20) == 6
assert ts.map(abs, [-7], backend=backend, workers=2) == [7]
pool.close()
del pool, results
for file in files:
    file.write("still here")
    file.seek(0)
    assert file.read() == "still here"
for poll in polls:
    poll.poll(0)
print("whole")
"""


@pytest.mark.parametrize("way", ["map", "submit", "in the middle", "close"])
@pytest.mark.parametrize("backend", ["process", "thread"])
def test_the_next_call_starts_afresh(run_script: RunScript, backend: str, way: str) -> None:
    script = run_script(DAEMON, backend, way, timeout=60)
    assert (script.returncode, script.stdout, script.stderr) == (0, "whole\n", "")


AFTER_A_FORK = """
import os, sys
import teamster as ts

path = sys.argv[1]
assert ts.map(abs, [-1, -2], backend="process", workers=2) == [1, 2]
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
os.closerange(3, 256)
logs = [open(f"{path}.{number}", "w") for number in range(12)]
found = [ts.map(abs, [-3, -4], backend="process", workers=2) for _ in range(2)]
for log in logs:
    log.write("still here")
    log.close()
whole = all(open(log.name).read() == "still here" for log in logs)
with open(path + ".part", "w") as file:
    print(found, whole, file=file)
os.rename(path + ".part", path)
"""


def test_the_copy_that_is_left_of_a_daemon_maps(
    start_script: StartScript, tmp_path: Path, wait_until: WaitUntil
) -> None:
    told = tmp_path / "told"
    start_script(AFTER_A_FORK, str(told))
    wait_until(told.exists, seconds=60)
    assert told.read_text() == "[[3, 4], [3, 4]] True\n"


WHILE_ITS_READER_WAITS = """
import os, sys, threading, time
import teamster as ts

pool = ts.Pool("process", workers=2)
call = pool.submit(time.sleep, 5)
call.add_done_callback(lambda _: None)

def waits(thread):
    frame = sys._current_frames().get(thread.ident)
    return frame is not None and frame.f_code.co_name == "poll"

until = time.monotonic() + 30
while not any(t.name == "teamster-reader" and waits(t) for t in threading.enumerate()):
    assert time.monotonic() < until
    time.sleep(0.01)
time.sleep(0.1)  # from there into the system's wait, which no frame shows
os.closerange(3, 256)
null = [open(os.devnull) for _ in range(40)]
assert pool.map(abs, range(-3, 1)) == [3, 2, 1, 0]
assert call.result(timeout=40) is None  # run again: its worker is gone
assert pool.submit(abs, -6).result(timeout=20) == 6
pool.close()
print("whole")
"""


def test_a_thread_that_waits_meanwhile_notices(run_script: RunScript) -> None:
    script = run_script(WHILE_ITS_READER_WAITS, timeout=60)
    assert (script.returncode, script.stdout, script.stderr) == (0, "whole\n", "")


HANDLES = """
import os, sys, tempfile, time
import teamster as ts

executor, process = ts.Executor(2), ts.spawn(time.sleep, 60)
assert executor.submit(abs, -5).result() == 5
os.closerange(3, 256)
files = [tempfile.TemporaryFile("w+", buffering=1) for _ in range(40)]
for number in range(3):
    assert executor.submit(abs, -number).result(timeout=20) == number
executor.shutdown()
try:
    process.result(timeout=20)
except ts.WorkerDied:
    pass
assert ts.spawn(abs, -7).result(timeout=20) == 7
for file in files:
    file.write("still here")
    file.seek(0)
    assert file.read() == "still here"
print("whole")
"""


def test_handles_that_the_program_keeps_start_afresh_too(run_script: RunScript) -> None:
    """What a dead worker has left is not read from a descriptor that may be another file's."""
    script = run_script(HANDLES, timeout=60)
    assert (script.returncode, script.stdout, script.stderr) == (0, "whole\n", "")
