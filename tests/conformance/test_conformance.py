# SPDX-License-Identifier: BSD-3-Clause
"""CPython's own tests, with our executors and pools: all pass but those that `differs.py` lists."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.conformance.cases import ROOT, VERSION
from tests.conformance.differs import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterable

Outcomes = dict[str, dict[str, str]]
PROGRAM = [sys.executable, "-X", "faulthandler", "-m", "tests.conformance.program"]


def names() -> list[str]:
    done = subprocess.run([*PROGRAM, "--list"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.split()


def wanted(items: Iterable[pytest.Item]) -> list[str]:
    return [
        item.callspec.params["name"]
        for item in items
        if isinstance(item, pytest.Function) and item.originalname == "test_as_in_cpython"
    ]


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> Outcomes:
    """Of all that are to be run: several run at a time."""
    given = "\n".join(wanted(request.session.items))
    done = subprocess.run(PROGRAM, cwd=ROOT, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {each["name"]: each for each in map(json.loads, done.stdout.splitlines())}


NAMES = names()


@pytest.mark.parametrize("start", ["ThreadPool", "ProcessPool", "PoolOf"])
def test_the_files_are_there(start: str) -> None:
    if not any(name.startswith(start) for name in NAMES):
        pytest.skip(f"this Python comes without its tests (Debian has them as libpython{VERSION}-testsuite)")
    assert len(NAMES) > 40


@pytest.mark.timeout(600)  # the first one runs them all
@pytest.mark.parametrize("name", NAMES)
def test_as_in_cpython(name: str, outcomes: Outcomes) -> None:
    outcome, text, reason = outcomes[name]["outcome"], outcomes[name]["text"], reason_of(name)
    if outcome == "skipped":
        pytest.skip(text.strip())
    if not reason:
        assert outcome == "passed", text
        return
    assert outcome != "passed", f"differs.py says: {reason}; now it passes, so take it from there"
    pytest.xfail(reason)
