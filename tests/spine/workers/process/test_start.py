# SPDX-License-Identifier: BSD-3-Clause
"""A module that starts processes while it is imported, by the workers, too."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.conftest import RunScript

SETTINGS = """
import teamster as ts

def work(n):
    return n + 1

TABLE = ts.map(work, range(4), backend="process", workers=2, start_method="{}")
"""


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
@pytest.mark.parametrize(
    "how",
    ["import settings_of_a_test", "ts.map(__import__, ['settings_of_a_test'], backend='process')"],
)
def test_the_chain_ends_with_the_error_that_explains_it(
    run_script: RunScript, tmp_path: Path, how: str, start_method: str
) -> None:
    (tmp_path / "settings_of_a_test.py").write_text(SETTINGS.format(start_method))
    script = run_script(
        f"import teamster as ts\n{how}",
        env={"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
    )
    assert script.returncode == 1
    assert (
        "processes are started while a worker imports settings_of_a_test, line 7 of"
        in script.stderr
    )
    assert not script.survivors()


IMPORTS_ITSELF = """
import teamster as ts

def work(n):
    import imports_itself
    return imports_itself.STEP + n

STEP = 3
try:
    print(ts.map(work, [1], backend="process", workers=1), flush=True)
except ts.StartMethodRefused as error:
    print(type(error).__name__, flush=True)
"""


def test_a_chain_through_tasks_ends_too(run_script: RunScript, tmp_path: Path) -> None:
    """The task imports the module, of which the worker's worker runs the task, and so on."""
    (tmp_path / "imports_itself.py").write_text(IMPORTS_ITSELF)
    script = run_script(
        "import imports_itself", env={"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    )
    assert script.stdout.splitlines().count("StartMethodRefused") <= 1
    assert script.stdout.splitlines()[-1] == "[4]"
    assert (script.returncode, script.stderr) == (0, "")
    assert not script.survivors()


FEW_DESCRIPTORS = """
import os, resource, sys
import teamster as ts

resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]),) * 2)
for workers in (2, 12, 12):
    with ts.Executor(workers) as executor:
        assert list(executor.map(abs, range(-300, 0))) == list(range(300, 0, -1))
    with ts.Pool("process", workers=workers) as pool:
        assert pool.map(abs, range(-300, 0)) == list(range(300, 0, -1))
"""


@pytest.mark.parametrize("limit", ["32", "64"])
def test_where_not_all_workers_can_be_had_some_do_the_work(
    run_script: RunScript, limit: str
) -> None:
    script = run_script(FEW_DESCRIPTORS, limit, timeout=60)
    assert (script.returncode, script.stderr) == (0, "")
