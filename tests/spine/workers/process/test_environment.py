# SPDX-License-Identifier: BSD-3-Clause
"""What the program changes about itself between two calls of one pool."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from teamster.spine.workers.process.environment import changes, current_environment
from tests.conftest import RunScript

CHANGES = """
import os, resource, sys
import teamster as ts

def state(_):
    mask = os.umask(0)
    os.umask(mask)
    limit, cpus = resource.getrlimit(resource.RLIMIT_NOFILE), sorted(os.sched_getaffinity(0))
    mark, rights = os.environ.get("MARK"), (os.getresuid(), os.getgroups())
    return mask, os.nice(0), limit, cpus, os.getcwd(), mark, *rights

def give_up_rights():
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)

with ts.Pool("process", workers=2, start_method=sys.argv[1]) as pool:
    steps = [
        lambda: None,
        lambda: os.umask(0o027),
        lambda: os.nice(3),
        lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (300, 400)),
        lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
        lambda: os.chdir("/"),
        lambda: os.environ.update(MARK="1"),
        lambda: os.environ.pop("MARK"),
    ]
    if sys.argv[2] == "root":
        steps.append(give_up_rights)
    for step in steps:
        step()
        assert pool.map(state, range(4), chunksize=1) == [state(0)] * 4
"""


@pytest.mark.parametrize("start_method", ["forkserver", "spawn", "fork"])
def test_tasks_find_what_they_would_find_in_the_program(
    run_script: RunScript, start_method: str
) -> None:
    script = run_script(CHANGES, start_method, "any")
    assert (script.returncode, script.stderr) == (0, "")


def others_may_run(path: str) -> bool:
    """Whether a user without rights can read a file, and pass through all folders above it."""
    whole = Path(path).resolve()
    return bool(whole.stat().st_mode & 0o4) and all(
        folder.stat().st_mode & 0o1 for folder in whole.parents
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="nobody but root can give rights up")
@pytest.mark.parametrize("start_method", ["forkserver", "spawn", "fork"])
def test_no_worker_keeps_rights_that_the_program_has_given_up(
    run_script: RunScript, start_method: str
) -> None:
    if start_method != "fork" and not (others_may_run(sys.executable) and others_may_run(__file__)):
        pytest.skip("a user without rights may not run this interpreter")
    script = run_script(CHANGES, start_method, "root")
    assert (script.returncode, script.stderr) == (0, "")


def test_only_changes_are_told() -> None:
    before = current_environment()
    assert changes(before, current_environment()) == {}
    now = {**before, "nice": before["nice"] + 1}
    assert changes(before, now) == {"nice": before["nice"] + 1}
