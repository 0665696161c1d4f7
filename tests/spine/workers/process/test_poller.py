# SPDX-License-Identifier: BSD-3-Clause
"""Where there is no epoll: on macOS, and in programs that gevent has patched."""

from tests.conftest import RunScript

MAPS = """
import teamster as ts

def square(number):
    return number * number

for kind in ("process", "thread", "auto"):
    print(sum(ts.map(square, range(50), backend=kind)))
for backend in ("process", "thread"):
    with ts.Executor(2, backend) as executor:
        print(sum(executor.map(square, range(100))))
with ts.Pool("process", 2) as pool:
    print(list(pool.imap(square, range(3), chunksize=1)), pool.submit(square, 9).result())
"""
RESULTS = ["40425", "40425", "40425", "328350", "328350", "[0, 1, 4] 81"]


def test_without_epoll(run_script: RunScript) -> None:
    script = run_script("import select\ndel select.epoll\n" + MAPS)
    assert script.stdout.splitlines() == RESULTS
    assert not script.stderr


def test_after_gevent_has_patched_the_program(run_script: RunScript) -> None:
    script = run_script("from gevent import monkey\nmonkey.patch_all()\n" + MAPS)
    assert script.stdout.splitlines() == RESULTS


def test_patches_that_come_too_late_are_refused(run_script: RunScript) -> None:
    late = (
        "import teamster as ts\nts.map(abs, [1], backend='thread')\nfrom gevent import monkey\n"
        "monkey.patch_all()\n"
    )
    script = run_script(late + "ts.map(abs, [1, 2], backend='thread')")
    assert script.returncode == 1
    assert script.stderr.splitlines()[-1].startswith(
        "teamster.errors.UsageError: threads were patched (gevent's monkey.patch_all()"
    )
