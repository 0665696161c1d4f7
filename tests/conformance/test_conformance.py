# SPDX-License-Identifier: BSD-3-Clause
"""CPython's own tests, with our executors and pools: all pass but those that `differs.py` lists."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.conformance.cases import ROOT, VERSION
from tests.conformance.differs import reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

PROGRAM = [sys.executable, "-X", "faulthandler", "-m", "tests.conformance.program"]


def names() -> list[str]:
    done = subprocess.run(
        [*PROGRAM, "--list"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.split()


def wanted(items: Iterable[pytest.Item]) -> list[str]:
    return [
        item.callspec.params["name"]
        for item in items
        if isinstance(item, pytest.Function) and item.originalname == "test_as_in_cpython"
    ]


class Outcomes:
    """Of all that are to be run, as they come: several run at a time."""

    def __init__(self, program: subprocess.Popen[str]) -> None:
        self._program = program
        self._known: dict[str, tuple[str, str]] = {}

    def of(self, name: str) -> tuple[str, str]:
        """What became of it, and what it printed."""
        assert self._program.stdout is not None
        while name not in self._known:
            line = self._program.stdout.readline()
            assert line, "the program that runs the tests has ended"
            each = json.loads(line)
            self._known[each["name"]] = each["outcome"], each["text"]
        return self._known[name]


@pytest.fixture
def no_leftovers() -> None:
    """Instead of the one for all tests: the program starts and ends processes meanwhile.

    `outcomes` looks after them.
    """


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    leaving_nothing: Callable[[], AbstractContextManager[None]],
) -> Iterator[Outcomes]:
    given = tmp_path_factory.mktemp("conformance") / "names"
    given.write_text("\n".join(wanted(request.session.items)))
    start = partial(subprocess.Popen, PROGRAM, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with leaving_nothing(), given.open() as source, start(stdin=source) as program:
        yield Outcomes(program)
        program.terminate()


NAMES = names()


@pytest.mark.parametrize("start", ["ThreadPool", "ProcessPool", "PoolOf"])
def test_the_files_are_there(start: str) -> None:
    if not any(name.startswith(start) for name in NAMES):
        pytest.skip(
            f"this Python comes without its tests (Debian has them as libpython{VERSION}-testsuite)"
        )
    assert len(NAMES) > 40


@pytest.mark.parametrize("name", NAMES)
def test_as_in_cpython(name: str, outcomes: Outcomes) -> None:
    (outcome, text), reason = outcomes.of(name), reason_of(name)
    if outcome == "skipped":
        pytest.skip(text.strip())
    if not reason:
        assert outcome == "passed", text
        return
    if outcome != "passed":
        pytest.xfail(reason)
    assert reason.startswith("either"), (
        f"differs.py says: {reason}; now it passes, so take it from there"
    )
