# SPDX-License-Identifier: BSD-3-Clause
"""What is imported once, before workers are forked."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

import teamster as ts
from tests.conftest import RunScript, StartScript, WaitUntil

NOTES_WHERE = """
import os, pathlib
with open(pathlib.Path(__file__).with_suffix(".pids"), "a") as file:
    file.write(f"{os.getpid()}\\n")
"""

TWO_POOLS = """
import os, sys
sys.path.insert(0, "FOLDER")
import teamster as ts

def number(_):
    import heavy
    return os.getpid()

for _ in range(2):
    with ts.Pool("process", workers=2, preload=["heavy", "is_nowhere"]) as pool:
        workers = set(pool.map(number, range(8), chunksize=1))
pids = [int(line) for line in open("FOLDER/heavy.pids")]
assert len(pids) == 1 and pids[0] not in {os.getpid(), *workers}, (pids, workers)
"""

FAILS = """
import sys
sys.path.insert(0, "FOLDER")
import teamster as ts
with ts.Pool("process", workers=1, preload=["heavy"]) as pool:
    assert pool.map(abs, [-1]) == [1]
"""

KILLED = """
import sys
sys.path.insert(0, "FOLDER")
import teamster as ts
pool = ts.Pool("process", workers=1, preload=["heavy"])
pool.submit(abs, -1).result()
"""


def script_in(folder: Path, text: str, heavy: str) -> str:
    (folder / "heavy.py").write_text(heavy)
    return text.replace("FOLDER", str(folder))


def test_it_is_imported_once_for_all_workers_and_pools(
    run_script: RunScript, tmp_path: Path
) -> None:
    script = run_script(script_in(tmp_path, TWO_POOLS, NOTES_WHERE), timeout=60)
    assert script.returncode == 0, script.stderr


def test_one_that_fails_is_left_to_the_workers(run_script: RunScript, tmp_path: Path) -> None:
    fails_in_the_server = "import sys\nif sys.argv[-1].startswith('teamster-'):\n    1 / 0\n"
    script = run_script(script_in(tmp_path, FAILS, fails_in_the_server), timeout=60)
    assert script.returncode == 0, script.stderr
    assert "ZeroDivisionError" not in script.stderr


def test_the_program_is_killed_during_the_import(
    start_script: StartScript, tmp_path: Path, wait_until: WaitUntil
) -> None:
    heavy = f"{NOTES_WHERE}\nimport time\ntime.sleep(120)\n"
    script = start_script(script_in(tmp_path, KILLED, heavy))
    pids = tmp_path / "heavy.pids"
    wait_until(lambda: pids.exists() and pids.read_text().endswith("\n"), 60)
    script.send_signal(signal.SIGKILL)
    script.wait()
    wait_until(lambda: not script.survivors(), 5)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"preload": "torch"}, "list of names"),
        ({"preload": ["os"], "start_method": "spawn"}, "'spawn'"),
        ({"preload": ["os"], "backend": "thread"}, "thread"),
    ],
)
def test_where_nothing_can_be_imported_before(options: dict[str, object], says: str) -> None:
    with pytest.raises(ts.UsageError, match=says):
        ts.Pool(**{"backend": "process", **options})  # type: ignore[arg-type]


def test_a_module_that_the_program_has_from_elsewhere_is_left_out(tmp_path: Path) -> None:
    from teamster.spine.workers.process.preloading import import_all

    (tmp_path / "theirs_alone.py").write_text("")
    read, write = os.pipe()
    sys.path.insert(0, str(tmp_path))
    try:
        import_all({"theirs_alone": "/elsewhere.py"}, write)
        assert "theirs_alone" not in sys.modules
        import_all({"theirs_alone": str(tmp_path / "theirs_alone.py")}, write)
        assert sys.modules.pop("theirs_alone")
    finally:
        sys.path.remove(str(tmp_path))
        os.close(read)
        os.close(write)
