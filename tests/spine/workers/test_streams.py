# SPDX-License-Identifier: BSD-3-Clause
"""Output that its reader, or its encoding, does not take."""

from __future__ import annotations

import os

import pytest

from tests.conftest import RunScript

BROKEN = """
import os, sys
import teamster as ts

def work(n):
    print(n, "x" * 500)
    return n

read, write = os.pipe()
os.dup2(write, 1)
os.close(write)
os.close(read)
try:
    ts.map(work, range(3_000), backend=sys.argv[1], workers=2)
except BrokenPipeError:
    sys.stderr.write("broken")
    os._exit(0)
"""
UNENCODABLE = """
import sys
import teamster as ts

def work(n):
    print("gr\\u00fc\\u00dfe" if n else "greetings")
    return n

first, second = ts.map(work, [0, 1], backend=sys.argv[1], workers=1, on_error="return")
print(first, type(second).__name__ if isinstance(second, Exception) else second)
"""


@pytest.mark.parametrize("backend", ["serial", "process"])
def test_a_reader_that_is_gone_ends_the_call(run_script: RunScript, backend: str) -> None:
    script = run_script(BROKEN, backend)
    assert (script.returncode, script.stderr) == (0, "broken")


@pytest.mark.parametrize("backend", ["serial", "process"])
def test_text_that_cannot_be_encoded_is_the_tasks_error(run_script: RunScript, backend: str) -> None:
    strict, replacing = {**os.environ, "PYTHONIOENCODING": "ascii"}, {**os.environ, "PYTHONIOENCODING": "ascii:replace"}
    assert run_script(UNENCODABLE, backend, env=strict).stdout == "greetings\n0 UnicodeEncodeError\n"
    assert run_script(UNENCODABLE, backend, env=replacing).stdout == "greetings\ngr??e\n0 1\n"


LOGGERS = """
import logging
import teamster as ts

class Logger(logging.Logger):
    def notice(self, text): self.log(25, text)
def record(*arguments, **options):
    made = logging.LogRecord(*arguments, **options)
    made.app = "app"
    return made
def task(n): log.notice(f"item {n}")

logging.setLoggerClass(Logger)
logging.addLevelName(25, "NOTICE")
logging.setLogRecordFactory(record)
logging.basicConfig(level=20, format="%(app)s %(levelname)s %(message)s")
log = logging.getLogger("mine")
ts.map(task, [1], backend="process", workers=2)
"""


def test_loggers_of_a_class_of_the_program(run_script: RunScript) -> None:
    assert run_script(LOGGERS).stderr == "app NOTICE item 1\n"
