# SPDX-License-Identifier: BSD-3-Clause
"""``python -m tests.conformance.program``: run tests of CPython, each in a forked copy of this
process, a few at a time.

::

    names, one a line, on stdin --> fork a copy for each -->
        {"name": ..., "outcome": ..., "text": ...}, one a line, on stdout
    --list                      --> names, one a line

A copy of its own: one test that hangs, or leaves threads and workers behind, is nothing that the
next one notices. Some count on a machine that is not busy; what fails beside others, and should
not, is run once more when it is alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
import time
import traceback
import unittest
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

from tests.conformance.cases import find_cases
from tests.conformance.differs import reason_of
from tests.fair_clock import FairClock

AT_A_TIME = 8  # most of them sleep most of the time
LIMIT_S = 60.0
SOON_S = 5.0  # is enough to see that a test fails which is expected to
OUTCOMES = ("passed", "failed", "skipped")


@dataclass
class Copy:
    """A process that runs one test."""

    case: unittest.TestCase
    pid: int
    output: IO[bytes]
    limit_s: float
    clock: FairClock = field(default_factory=FairClock)

    def outcome(self) -> str:
        """Empty while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            return OUTCOMES[code] if 0 <= code < len(OUTCOMES) else f"ended with {code}"
        if self.clock.read() > self.limit_s:
            os.kill(self.pid, signal.SIGABRT)  # faulthandler is on and prints all stacks
            os.waitpid(self.pid, 0)
            return "hangs"
        return ""

    def text(self) -> str:
        self.output.seek(0)
        return self.output.read().decode(errors="replace")


def start(name: str, case: unittest.TestCase) -> Copy:
    expected = bool(reason_of(name))
    output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by who reads it
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setpgid(0, 0)
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            code = run(case, soon=expected)
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    return Copy(case, pid, output, SOON_S * 2 if expected else LIMIT_S)


def run(case: unittest.TestCase, *, soon: bool) -> int:
    """Run it; 0 when it passes, 1 when it fails, 2 when it is skipped."""
    # It only waits, and warns, and costs more than most of the tests.
    sys.modules["test.support.threading_helper"].threading_cleanup = lambda *_: None  # type: ignore[attr-defined]
    if soon:
        sys.modules["test.support"].SHORT_TIMEOUT = SOON_S  # type: ignore[attr-defined]
    result = unittest.TextTestResult(
        unittest.runner._WritelnDecorator(sys.stdout),  # type: ignore[arg-type, attr-defined]
        descriptions=False,
        verbosity=1,
    )
    unittest.TestSuite([case]).run(result)
    result.printErrors()
    for _, reason in result.skipped:
        print(reason)
    if result.skipped and not result.errors and not result.failures:
        return 2
    return 0 if result.wasSuccessful() and result.testsRun == 1 else 1


def main() -> None:
    cases = find_cases()
    if "--list" in sys.argv:
        print(*cases, sep="\n")
        return
    names = [line.strip() for line in sys.stdin]
    again = []
    for name, outcome, text in run_all(cases, names, AT_A_TIME):
        if outcome in ("passed", "skipped") or reason_of(name):
            tell(name, outcome, text)
        else:
            again.append(name)
    for each in run_all(cases, again, 1):
        tell(*each)


def run_all(
    cases: dict[str, unittest.TestCase], names: list[str], at_a_time: int
) -> Iterator[tuple[str, str, str]]:
    """Name, outcome and output of each, as they end."""
    waiting, running = names[::-1], dict[str, Copy]()
    while waiting or running:
        while waiting and len(running) < at_a_time:
            name = waiting.pop()
            running[name] = start(name, cases[name])
        time.sleep(0.01)
        for name, copy in list(running.items()):
            if outcome := copy.outcome():
                with contextlib.suppress(ProcessLookupError):
                    # What it leaves: servers of theirs, but no tracker, which cleans up
                    os.killpg(copy.pid, signal.SIGTERM)
                yield name, outcome, copy.text()
                copy.output.close()
                del running[name]


def tell(name: str, outcome: str, text: str) -> None:
    print(json.dumps({"name": name, "outcome": outcome, "text": text}), flush=True)


if __name__ == "__main__":
    main()
