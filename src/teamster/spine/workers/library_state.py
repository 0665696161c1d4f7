# SPDX-License-Identifier: BSD-3-Clause
"""What the program has set around its functions, taken at a call and set where its items run.

::

    caller: take() --> {(row, name): value}, what is not usual    threads: what each has for itself
              |
              +-- since(what the worker was told at its start) --> the difference, mostly nothing
                                                                      |
    worker: Scene.enter(difference) before a batch of the function; it is taken back before one of
            another
"""

from __future__ import annotations

import contextlib
import contextvars
import pickle
import sys
import threading
from collections.abc import Iterable, Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

from teamster.spine.transport.pickled import pack_whole
from teamster.spine.workers.package_settings import PACKAGES
from teamster.spine.workers.settings import STANDARD, Setting

State = dict[tuple[str, Any], Any]
"""By title of the row and name; `...` for what is not set any more."""

SETTINGS = STANDARD + PACKAGES
_ROWS = {row.title: row for row in SETTINGS}
_EXPECTED = frozenset(row.title for row in SETTINGS[:3])  # a worker has them from its start


class _Reading:
    """Reads rows, and gives the same object as before as long as nothing has changed.

    Then a comparison of C is all there is to do. What was read and what it means are set in one
    step: threads that have set different things read at the same time.
    """

    def __init__(self, rows: tuple[Setting, ...]) -> None:
        self._rows = rows
        self._loaded: tuple[int, list[Setting]] = 0, []  # those whose module is there, of so many
        self._known: tuple[list[Setting], list[Any], State] = [], [], {}

    def __call__(self) -> State:
        rows = self._rows_there()
        values = _read_raw(rows)
        of, known, state = self._known
        if values != known or rows is not of:
            state = _read(rows)
            self._known = rows, values, state
        return state

    def _rows_there(self) -> list[Setting]:
        """The same list as before as long as no module is loaded, or unloaded."""
        modules = sys.modules
        count, rows = self._loaded
        if count != len(modules):
            count = len(modules)
            there = [row for row in self._rows if modules.get(row.module) is not None]
            if there != rows:
                rows = there
            self._loaded = count, rows
        return rows


def _read_raw(rows: list[Setting]) -> list[Any]:
    modules = sys.modules
    try:
        return [row.read(modules[row.module]) for row in rows]
    except Exception:
        return [_try_to_read(row, modules) for row in rows]


def _try_to_read(row: Setting, modules: dict[str, ModuleType]) -> object:
    """None for a row that counts as not there."""
    try:
        return row.read(modules[row.module])
    except Exception:
        return None


_all = _Reading(SETTINGS)
_of_thread = _Reading(tuple(row for row in SETTINGS if row.of_thread))


def take() -> State:
    """What the program has set.

    Returns:
        The same object as the time before where nothing has changed.

    Example:
        >>> import decimal
        >>> with decimal.localcontext() as context:
        ...     context.prec = 60
        ...     take()["decimal's context", "context"][0]
        60
    """
    held = _moment.state
    return _all() if held is None else held


class _Moment(threading.local):
    """What this thread has taken, while it says that nothing changes."""

    state: State | None = None


_moment = _Moment()


@contextlib.contextmanager
def one_moment() -> Iterator[None]:
    """In here `take` reads once: for several calls, one after the other, of this thread.

    Example:
        >>> with one_moment():
        ...     first, second = take(), take()
        >>> first is second
        True
    """
    _moment.state = _all()
    try:
        yield
    finally:
        _moment.state = None


def take_of_thread() -> State:
    """The part of it that each thread, or context, has for itself."""
    return _of_thread()


def _read(rows: Iterable[Setting]) -> State:
    state: State = {}
    modules = sys.modules
    for row in rows:
        if (module := modules.get(row.module)) is None:
            continue
        try:
            values = row.read(module)
            if values == row.usual:
                continue
            title, usual = row.title, row.usual
            for name, value in values.items():
                if name not in usual or usual[name] != value:
                    state[title, name] = value
        except Exception:  # a version that does not know it, a module that is being loaded
            continue
    return state


def since(told: State, state: State) -> State:
    """What has changed since a worker was `told`, in the order of the table."""
    if told is state or told == state:
        return {}
    changed = {key: value for key, value in state.items() if key not in told or told[key] != value}
    changed |= {key: _ROWS[key[0]].usual.get(key[1], ...) for key in told if key not in state}
    return changed


def library_part(state: State) -> State:
    """All but the environment and the paths, which a worker is told apart, before all else."""
    return {key: value for key, value in state.items() if key[0] not in _EXPECTED}


def dump(state: State) -> bytes:
    """For the journey; what does not pickle stays behind (`unsendable` names it)."""
    if not state:
        return b""
    try:
        return pack_whole(state)
    except Exception:
        return pack_whole({key: value for key, value in state.items() if _travels(value)})


def load(dumped: bytes) -> State:
    """What `dump` made, in another process; as much as that can make of it."""
    try:
        state: State = pickle.loads(dumped) if dumped else {}
    except Exception:  # it needs a library that cannot be had here
        return {}
    return state


def unsendable(state: State) -> str:
    """The title of a row that cannot travel; empty when all can."""
    return next((title for (title, _), value in state.items() if not _travels(value)), "")


def _travels(value: object) -> bool:
    try:
        pack_whole(value)
    except Exception:
        return False
    return True


class Scene:
    """What is set for the function that runs in this thread.

    Args:
        before: what there was before the initializer, if there was one: what that has set, it has
            set for all functions.
    """

    def __init__(self, before: State | None) -> None:
        now = {} if before is None else _read(SETTINGS)
        before = before or {}
        changed = [key for key in before | now if before.get(key, ...) != now.get(key, ...)]
        self._made = {key: now.get(key, _ROWS[key[0]].usual.get(key[1], ...)) for key in changed}
        self._own = contextvars.copy_context()  # where what was here before is found
        self._state: State = {}
        self._before: State = {}

    def enter(self, state: State) -> None:
        """Set what a function is to find, and take back what the one before it found."""
        if state is self._state:
            return
        for key in self._state:
            if key not in state and key in self._before:
                _write(key, self._before.pop(key))
        for key, value in state.items():
            if key in self._made:
                continue
            if key not in self._before:
                self._before[key] = self._own.run(_current, key)
            _write(key, value)
        for key, value in self._made.items():
            if _ROWS[key[0]].of_thread:  # this may be a context that comes from the caller
                _write(key, value)
        self._state = state


def set_all(state: State) -> None:
    """Set it for good."""
    for key, value in state.items():
        _write(key, value)


def _current(key: tuple[str, Any]) -> Any:
    row = _ROWS[key[0]]
    try:
        return row.read(import_module(row.module)).get(key[1], row.usual.get(key[1], ...))
    except Exception:
        return row.usual.get(key[1], ...)


def _write(key: tuple[str, Any], value: Any) -> None:
    row = _ROWS[key[0]]
    try:
        row.write(import_module(row.module), key[1], value)
    except Exception:  # the folder is gone, the locale is not installed; so it is for the program
        return
