# SPDX-License-Identifier: BSD-3-Clause
"""What ends with the program, and what a forked copy of it lets go."""

from collections.abc import Callable
from typing import Any

HOOKS = """
import gc, os, sys
from teamster import lifetime

class Held:
    def __init__(self, name):
        self.name = name
    def after_fork(self):
        print("renewed", self.name, flush=True)

def in_copy():
    print("copy", flush=True)
def before():
    print("before", flush=True)
def finish():
    print("finish", flush=True)
def end():
    print("end", flush=True)

for _ in range(3):
    lifetime.in_forked_copy(in_copy)
    lifetime.before_fork(before)
    lifetime.finish_at_exit(finish)
    lifetime.end_at_exit(end)
kept, gone = lifetime.renewed_in_copies(Held("kept")), lifetime.renewed_in_copies(Held("gone"))
del gone
gc.collect()
if (pid := os.fork()) == 0:
    os._exit(0)
os.waitpid(pid, 0)
print("main", flush=True)
"""


def test_each_is_called_once_and_in_its_order(run_script: Callable[..., Any]) -> None:
    script = run_script(HOOKS)
    assert script.stderr == ""
    assert script.stdout.split("\n") == [
        "before",
        "copy",
        "renewed kept",
        "main",
        "finish",
        "end",
        "",
    ]


def test_an_import_hooks_into_nothing(run_script: Callable[..., Any]) -> None:
    script = run_script(
        "import atexit, os, pkgutil, importlib\n"
        "hooks = []\n"
        "os.register_at_fork = lambda **functions: hooks.extend(functions.values())\n"
        "atexit.register = lambda function, *_: hooks.append(function)\n"
        "import teamster\n"
        "for module in pkgutil.walk_packages(teamster.__path__, 'teamster.'):\n"
        "    if not module.name.startswith(('teamster.parallel', 'teamster.data', "
        "'teamster.tensors', 'teamster.train', 'teamster.cli')):\n"
        "        importlib.import_module(module.name)\n"
        "print([each for each in hooks if (each.__module__ or '').startswith('teamster')])"
    )
    assert (script.stdout, script.stderr) == ("[]\n", "")
