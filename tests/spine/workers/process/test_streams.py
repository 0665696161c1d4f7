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
def test_text_that_cannot_be_encoded_is_the_tasks_error(
    run_script: RunScript, backend: str
) -> None:
    strict, replacing = (
        {**os.environ, "PYTHONIOENCODING": "ascii"},
        {**os.environ, "PYTHONIOENCODING": "ascii:replace"},
    )
    assert (
        run_script(UNENCODABLE, backend, env=strict).stdout == "greetings\n0 UnicodeEncodeError\n"
    )
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


BYTES = """
import io, sys
import teamster as ts

sys.stdout.reconfigure(encoding="utf-8", line_buffering=True)

def bare(n):
    sys.stdout.reconfigure(line_buffering=True)
    for part in (b"\\xff bytes ", "\\u00fc".encode()[:1], "\\u00fc".encode()[1:], b"\\n"):
        sys.stdout.buffer.write(part)

def wrapped(n):
    sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8")
    print("wrapped", n)

ts.map(bare, [1], backend="process", workers=1)
ts.map(wrapped, [1], backend="process", workers=1)
"""


def test_streams_take_bytes_and_what_programs_set_of_them(run_script: RunScript) -> None:
    script = run_script(
        "import subprocess, sys\nsys.stdout.write(ascii(subprocess.run([sys.executable, '-c', "
        f"{BYTES!r}], capture_output=True)))"
    )
    assert "stdout=b'\\xff bytes \\xc3\\xbc\\nwrapped 1\\n', stderr=b''" in script.stdout


FORKED = """
import logging, multiprocessing as mp, os, sys, warnings
import teamster as ts

logging.basicConfig()

def say(how):
    print(how)
    print("no end of line", end=";\\n" if how == "process" else ";", flush=True)
    logging.getLogger("mine").error(how)
    warnings.warn(how)

def start(how):
    print("of the worker,", end=" ")
    if how == "process":
        process = mp.get_context("fork").Process(target=say, args=(how,))
        process.start()
        process.join()
        code = process.exitcode
    else:
        if not (copy := os.fork()):
            say(how)
            if how == "exit":
                sys.exit(3)
            return "a result of the copy"
        code = os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])
    print("too")
    return code

for how in ("process", "exit", "return"):
    print(ts.map(start, [how], backend="process", workers=1), flush=True)
"""


def test_processes_that_a_task_has_forked_print_and_bring_no_results(run_script: RunScript) -> None:
    script = run_script(FORKED)
    lines = [
        f"{how}\nno end of line;{end}of the worker, too\n[{code}]\n"
        for how, end, code in (("process", "\n", 0), ("exit", "", 3), ("return", "", 0))
    ]
    assert script.stdout == "".join(lines)
    assert [
        f"ERROR:mine:{how}" in script.stderr and f"UserWarning: {how}" in script.stderr
        for how in ("process", "exit", "return")
    ] == [True] * 3


MISTAKEN = """
import logging, sys
import teamster as ts

logging.basicConfig()
print(ts.map(lambda n: logging.error("%d", "no number") or n, [1, 2], backend=sys.argv[1]))
"""


@pytest.mark.parametrize("backend", ["serial", "process"])
def test_a_mistake_in_a_log_message_is_printed_and_not_the_tasks(
    run_script: RunScript, backend: str
) -> None:
    script = run_script(MISTAKEN, backend)
    assert (script.stdout, script.stderr.count("Message: '%d'")) == ("[1, 2]\n", 2)
