# SPDX-License-Identifier: BSD-3-Clause
"""CPython's own tests of `concurrent.futures` and `multiprocessing.Pool`, put on our executors and
pools.

Many distributions leave the files out of what they install, or have a package of their own for them
(as Debian).
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.conformance import executors

ROOT = Path(__file__).parents[2]
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
# Files of theirs
ABOUT_EXECUTORS = (
    "as_completed",
    "deadlock",
    "init",
    "process_pool",
    "shutdown",
    "thread_pool",
    "wait",
)
# And how workers start matters nothing
TAKES_LONG = {"ProcessPoolSpawnExecutorDeadlockTest", "ProcessPoolSpawnAsCompletedTest"}
MIXINS = {
    "ThreadPoolMixin": executors.ThreadPoolExecutor,
    "ProcessPoolForkMixin": executors.ProcessPoolExecutor,
    "ProcessPoolForkserverMixin": executors.ProcessPoolExecutor,
    "ProcessPoolSpawnMixin": executors.ProcessPoolExecutor,
}


def find_cases() -> dict[str, unittest.TestCase]:
    """Each by the name of its class and its own.

    Fewer, or none, where this Python comes without them.
    """
    classes = [*(_executor_classes() if _can_have("test_concurrent_futures") else ())]
    classes += (
        import_module("tests.conformance.pool_cases").CLASSES
        if _can_have("_test_multiprocessing")
        else ()
    )
    loader = unittest.TestLoader()
    return {
        f"{each.__name__}.{name}": each(name)
        for each in classes
        for name in loader.getTestCaseNames(each)
        if each.__name__ not in TAKES_LONG
    }


def _can_have(name: str) -> bool:
    if not _is_there(name):
        _take_from_the_system()
    return _is_there(name)


def _is_there(name: str) -> bool:
    return find_spec("test") is not None and find_spec(f"test.{name}") is not None


def _take_from_the_system() -> None:
    """Let ``import test`` find the files that the system has for the same version.

    Workers get it with sys.path.
    """
    folder = Path(f"/usr/lib/python{VERSION}/test")
    if not folder.is_dir():
        return
    place = tempfile.mkdtemp(prefix="teamster-conformance-")
    os.symlink(folder, f"{place}/test")
    sys.path.insert(0, place)
    for name in [name for name in sys.modules if name == "test" or name.startswith("test.")]:
        del sys.modules[name]
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:
            os.unlink(f"{place}/test")
            os.rmdir(place)

    atexit.register(remove)


def _executor_classes() -> Iterator[type[unittest.TestCase]]:
    """All that make executors.

    Those of `Future` alone are about a class of the standard library.
    """
    found: dict[str, type[unittest.TestCase]] = {}
    for module in _executor_modules():
        for name, executor in MIXINS.items():
            if "executor_type" in vars(getattr(module, name, object)):
                getattr(module, name).executor_type = staticmethod(executor)
        if hasattr(module, "assert_python_ok"):
            module.assert_python_ok = _run_with_ours  # type: ignore[attr-defined]
        found |= {
            name: value
            for name, value in vars(module).items()
            if isinstance(value, type)
            and issubclass(value, unittest.TestCase)
            and hasattr(value, "executor_type")
        }
    yield from found.values()


def _executor_modules() -> list[ModuleType]:
    """A file until 3.11, a folder from 3.12 on."""
    theirs = import_module("test.test_concurrent_futures")
    if not hasattr(theirs, "__path__"):
        return [theirs]
    return [
        import_module(f"{theirs.__name__}.{name}")
        for name in ("util", *(f"test_{each}" for each in ABOUT_EXECUTORS))
    ]


def _run_with_ours(*arguments: str, **_: Any) -> tuple[int, bytes, bytes]:
    """Theirs is ``test.support.script_helper.assert_python_ok``.

    A program that imports an executor gets ours.
    """
    *flags, code = arguments
    code = code.replace("from concurrent.futures import", f"from {executors.__name__} import")
    head = f"import sys; sys.path[:0] = {[str(ROOT), *sys.path]!r}\n"
    done = subprocess.run([sys.executable, *flags, head + code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.returncode, done.stdout, done.stderr
