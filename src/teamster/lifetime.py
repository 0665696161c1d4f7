# SPDX-License-Identifier: BSD-3-Clause
"""What ends with the program, and what a forked copy of it lets go.

This is the one place that hooks into either, at first use.

::

    in_forked_copy(function)   a copy of the program runs it: threads, workers and descriptors are
                               the original's
    renewed_in_copies(object)  the same for each of many: a copy calls its `after_fork`
    before_fork(function)      the program runs it before it is copied
    finish_at_exit(function)   when the main thread has come to its end, while threads can still
                               be started
    end_at_exit(function)      after that, when only what is left has to be let go

Each function is hooked in once, however often it is named here, and in the order of first use; of
the ends the last comes first, as with `atexit`.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import weakref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol, TypeVar

    Function = Callable[[], object]

    class Renewed(Protocol):
        """Something that a forked copy of the program has to make anew, or to let go."""

        def after_fork(self) -> None:
            """In the copy."""

    _Object = TypeVar("_Object", bound=Renewed)

_before: dict[Function, None] = {}
_in_copies: dict[Function, None] = {}
_renewed: weakref.WeakSet[Renewed] = weakref.WeakSet()
_at_exit: set[Function] = set()
_hooked = False


def in_forked_copy(function: Function) -> None:
    """Have a forked copy of the program call `function` first of all."""
    if function not in _in_copies:
        _hook()
        _in_copies[function] = None


def renewed_in_copies(owner: _Object) -> _Object:
    """Have a forked copy of the program call the object's `after_fork`, if that is still there.

    Returns:
        The object.
    """
    _hook()
    _renewed.add(owner)
    return owner


def before_fork(function: Function) -> None:
    """Have the program call `function` before each fork."""
    if function not in _before:
        _hook()
        _before[function] = None


def finish_at_exit(function: Function) -> None:
    """Have the program call `function` when its main thread has come to its end.

    Not by `atexit`: thread pools that have not started all their workers could start none then.
    """
    if function not in _at_exit:
        _at_exit.add(function)
        # `concurrent.futures` registers its own end there
        register = getattr(threading, "_register_atexit", atexit.register)
        with contextlib.suppress(RuntimeError):
            # It raises where the program ends already, and this is one of its last acts
            register(function)


def end_at_exit(function: Function) -> None:
    """Have the program call `function` before the interpreter comes down."""
    if function not in _at_exit:
        _at_exit.add(function)
        atexit.register(function)


def _hook() -> None:
    global _hooked
    if not _hooked:
        _hooked = True
        os.register_at_fork(before=_call_before, after_in_child=_call_in_copy)


def _call_before() -> None:
    for function in list(_before):
        function()


def _call_in_copy() -> None:
    for function in list(_in_copies):
        function()
    for each in list(_renewed):
        each.after_fork()
