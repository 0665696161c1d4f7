# SPDX-License-Identifier: BSD-3-Clause
"""Rows of `benchmarks.map` that run whole programs: what only a script of its own shows."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

OURS = "teamster"

Contenders = dict[str, Callable[[], object]]

_COLD = {
    OURS: "import teamster as ts\np = ts.Pool('process', workers=2); next(p.imap(abs, [1]))",
    "Pool, fork server": "import multiprocessing as m\np = m.get_context('forkserver').Pool(2); "
    "next(p.imap(abs, [1]))",
}


def cold_start(_: ExitStack) -> Contenders:
    """A program from nothing to its first result; the start of the interpreter is part of both."""
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
    }
    return {
        name: partial(
            subprocess.run,
            [sys.executable, "-c", code],
            check=True,
            env=environment,
            stderr=subprocess.DEVNULL,
        )
        for name, code in _COLD.items()
    }


_OWN_CLASS = """
import sys, multiprocessing as m, teamster as ts

class Point:
    def __init__(self, x):
        self.x = x

def make(x):
    return Point(x)

if __name__ == "__main__":
    if sys.argv[1] == "teamster":
        found = ts.map(make, range(100_000), backend="process", workers=2)
    else:
        with m.get_context("forkserver").Pool(2) as pool:
            found = pool.map(make, range(100_000))
    assert type(found[-1]) is Point and found[-1].x == 99_999
"""


def own_class(stack: ExitStack) -> Contenders:
    """Results that are instances of a class of the program, which is a script; with its start."""
    script = Path(stack.enter_context(TemporaryDirectory())) / "script.py"
    script.write_text(_OWN_CLASS)
    return {
        name: partial(subprocess.run, [sys.executable, script, name], check=True)
        for name in (OURS, "Pool.map")
    }
