# SPDX-License-Identifier: BSD-3-Clause
"""CPython's tests of `multiprocessing.Pool`, with ours.

A file of its own, because workers import what is in it by name.
"""

from __future__ import annotations

import multiprocessing
import unittest
from functools import partial
from typing import Any
from unittest.mock import patch

from test import _test_multiprocessing as theirs

from tests.conformance.pools import Pool

Theirs: Any = theirs


class PoolOfProcessesTest(Theirs._TestPool, unittest.TestCase):  # type: ignore[misc]
    TYPE = "processes"
    Pool = staticmethod(partial(Pool, "process"))


class PoolOfThreadsTest(Theirs._TestPool, unittest.TestCase):  # type: ignore[misc]
    TYPE = "threads"
    Pool = staticmethod(partial(Pool, "thread"))


class Patched(unittest.TestCase):
    """Some call `multiprocessing.Pool` itself."""

    def setUp(self) -> None:
        ours = patch.object(multiprocessing, "Pool", partial(Pool, "process"))
        ours.start()
        self.addCleanup(ours.stop)


class PoolOfProcessesErrorsTest(Theirs._TestPoolWorkerErrors, Patched):  # type: ignore[misc]
    pass


class PoolOfProcessesLifetimeTest(Theirs._TestPoolWorkerLifetime, Patched):  # type: ignore[misc]
    # A program of theirs with their pool
    test_worker_finalization_via_atexit_handler_of_multiprocessing = None


CLASSES = [
    PoolOfProcessesTest,
    PoolOfThreadsTest,
    PoolOfProcessesErrorsTest,
    PoolOfProcessesLifetimeTest,
]
