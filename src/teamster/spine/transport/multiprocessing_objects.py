# SPDX-License-Identifier: BSD-3-Clause
"""Objects of `multiprocessing` on their way to workers.

They are connections, sockets, locks, queues, shared values, a Manager's proxies.

::

    pack:    with Passing() as passed: pickle   multiprocessing's own reducers ask which process is
                                                being started, and are told: ours
               descriptor of a pipe --> Passed  a duplicate of it, which lives as long as the parcel
    channel: enclose(passed) -----------------> the duplicate goes beside the message, under its key
    unpack:  Arriving(key).detach() <---------- the descriptor in the other process, once for each
                                                parcel that came

To `multiprocessing` the other process is a child that is being started: locks may go along then,
and a proxy brings its key. The objects must have been made for such a child:
``multiprocessing.get_context("forkserver").Lock()``; what was made for forks can be opened by
forks only.
"""

from __future__ import annotations

import contextlib
import copyreg
import itertools
import os
import sys
import types
from collections.abc import Callable
from typing import Any

from teamster.machine.descriptors import Descriptor

Key = tuple[int, int]
Reducers = dict[Any, Callable[[Any], Any]]

_numbers = itertools.count(1)
_arrived: dict[Key, int] = {}
# Pickle itself knows these, and faster
_NATIVE = (types.MethodType, type(list.append), type(int.__add__))
_FOR_FORKS = "fork context"  # what SemLock says of a lock that only forks can open


class Passed:
    """A descriptor that goes with a parcel; closed when the parcel is gone."""

    def __init__(self, descriptor: int) -> None:
        self._copy = Descriptor(os.dup(descriptor))
        self.key: Key = os.getpid(), next(_numbers)

    @property
    def number(self) -> int:
        """The duplicate."""
        return self._copy.number

    def __del__(self) -> None:
        if hasattr(self, "_copy"):
            self._copy.close()


class Arriving:
    """The same in the other process: what `multiprocessing` unpickles in place of a descriptor."""

    def __init__(self, key: Key) -> None:
        self._key = key

    def detach(self) -> int:
        """The descriptor, which is the caller's from now on.

        Raises:
            OSError: it was taken before, or has not come.
        """
        try:
            return _arrived.pop(self._key)
        except KeyError:
            raise OSError(
                "this connection or socket has arrived once already; pickle it anew to send it "
                "again"
            ) from None


def arrive(key: Key, descriptor: int) -> None:
    """A descriptor has come for a parcel."""
    before = _arrived.pop(key, None)
    if before is not None:
        os.close(before)
    _arrived[key] = descriptor


class _Start:
    """What `multiprocessing` takes for a process's start while something is pickled for it."""

    DupFd = Arriving

    def __init__(self) -> None:
        self.passed: list[Passed] = []

    def duplicate_for_child(self, descriptor: int) -> Key:
        """Have it go along."""
        self.passed.append(Passed(descriptor))
        return self.passed[-1].key


class Passing:
    """While something is pickled: descriptors may go along.

    Those that do are in the list that it gives.
    """

    __slots__ = ("_before", "_context")

    def __enter__(self) -> list[Passed]:
        self._context = context = sys.modules.get("multiprocessing.context")
        if context is None:
            return []
        self._before = context.get_spawning_popen()
        start = _Start()
        context.set_spawning_popen(start)
        return start.passed

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if self._context is None:
            return
        self._context.set_spawning_popen(self._before)
        if isinstance(error, RuntimeError) and _FOR_FORKS in str(error):
            with contextlib.suppress(Exception):
                error.add_note(
                    "make it for the workers' start method: "
                    "multiprocessing.get_context('forkserver').Lock() and so on; or hand it"
                    " over as initargs of Pool(start_method='fork')"
                )


_table: Reducers = {}
_table_size = (-1, -1)  # of its registries when it was made


def reducers(*, for_any_socket: bool = False) -> Reducers | None:
    """How to pickle what is of `multiprocessing`, in a table with what `copyreg` knows.

    Args:
        for_any_socket: also where there can be nothing of `multiprocessing`, which is when plain
            pickle has failed already.

    Returns:
        The table; None where it is of no use, and plain pickle is faster.
    """
    global _table, _table_size
    reduction = sys.modules.get("multiprocessing.reduction")
    if reduction is None or not (
        for_any_socket
        or "multiprocessing.connection" in sys.modules
        or "multiprocessing.heap" in sys.modules
    ):
        return None
    known = reduction.ForkingPickler._extra_reducers
    size = len(known), len(copyreg.dispatch_table)
    if size != _table_size:
        ours = {
            kind: reduce
            for kind, reduce in list(known.items())
            if kind not in _NATIVE
            and not str(getattr(reduce, "__module__", "")).startswith("torch")
        }
        _table, _table_size = {**copyreg.dispatch_table, **ours}, size
    return _table
