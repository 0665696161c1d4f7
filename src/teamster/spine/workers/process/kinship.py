# SPDX-License-Identifier: BSD-3-Clause
"""A worker as a child of the program in the eyes of `multiprocessing`.

It gets what that module hands to its own children at their start. ``current_process()`` has a
name, a number and a parent, and says that it is a daemon: joblib then stays serial inside of a
task, ``%(processName)s`` names the worker. A real daemon may have no children, and a task may: the
fork server ends whatever a worker leaves behind. The authentication key makes proxies of a Manager
work, the start method is what a task's own processes use.
"""

from __future__ import annotations

import itertools
import os
import sys
from typing import Any

from teamster.spine.workers import worker_info

_NAME = "TeamsterWorker-"


def kin_of_the_program() -> dict[str, Any]:
    """What there is to hand over now."""
    process = sys.modules.get("multiprocessing.process")
    if process is None:
        return {"pid": os.getpid(), "name": "MainProcess"}
    kin = {
        "pid": os.getpid(),
        "name": process.current_process().name,
        "authkey": bytes(process.current_process().authkey),
    }
    kin["folder"] = process.ORIGINAL_DIR
    if context := sys.modules.get("multiprocessing.context"):
        kin["start_method"] = context._default_context.get_start_method(allow_none=True)
    if spawn := sys.modules.get("multiprocessing.spawn"):
        kin["executable"] = spawn.get_executable()
    util = sys.modules.get("multiprocessing.util")
    if util is not None and util._logger is not None:
        kin["log"] = util._logger.getEffectiveLevel(), util._log_to_stderr
    return kin


def become_child(number: int) -> None:
    """In a worker, once: be a process of `multiprocessing`, the one with this number."""
    from multiprocessing import process

    process._current_process = _worker_process(number)  # type: ignore[attr-defined]
    process._children = set()  # type: ignore[attr-defined]
    process._process_counter = itertools.count(1)  # type: ignore[attr-defined]


def _worker_process(number: int) -> Any:
    from multiprocessing import process

    class WorkerProcess(process.BaseProcess):
        # For code that asks. Its configuration, which multiprocessing looks at before it starts a
        # child, says nothing.
        daemon = True

        def __init__(self, before: Any) -> None:
            vars(self).update(vars(before), _identity=(number,), _name=f"{_NAME}{number}")

    return WorkerProcess(process.current_process())


def follow(kin: dict[str, Any]) -> None:
    """In a worker: take what the program hands over."""
    from multiprocessing import context, process, spawn, util

    worker_info.of_a_worker = kin["name"].startswith(_NAME)
    current = process.current_process()
    if "authkey" in kin:
        current.authkey = kin["authkey"]
        process.ORIGINAL_DIR = kin["folder"]  # type: ignore[attr-defined]
    parent = process._parent_process  # type: ignore[attr-defined]
    if parent is None or parent.pid != kin["pid"]:
        process._parent_process = _parent(kin)  # type: ignore[attr-defined]
    if method := kin.get("start_method"):
        context._force_start_method(method)
    if executable := kin.get("executable"):
        spawn.set_executable(executable)
    if "log" in kin:
        level, to_stderr = kin["log"]
        if to_stderr and not util._log_to_stderr:  # type: ignore[attr-defined]
            util.log_to_stderr()
        util.get_logger().setLevel(level)


def _parent(kin: dict[str, Any]) -> Any:
    """The program as ``multiprocessing.parent_process()`` shows it.

    Its sentinel is ready when it has ended.
    """
    from multiprocessing import process

    try:
        sentinel = os.pidfd_open(kin["pid"])
    except (AttributeError, OSError):  # it has gone, and its worker goes with it
        sentinel = os.open(os.devnull, os.O_RDONLY)
    return process._ParentProcess(kin["name"], kin["pid"], sentinel)  # type: ignore[attr-defined]


def forget_the_program() -> None:
    """In a worker that was forked from the program: forget what the program does at its end.

    What it has registered for that is the program's to run.
    """
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        import atexit

        util._finalizer_registry.clear()
        util._run_after_forkers()
        atexit.register(util._exit_function)
