# SPDX-License-Identifier: BSD-3-Clause
"""A value that the program has told a worker: both may change it, each in its own process.

::

    told: state = {"size": 3}    here: state["db"] = connect()    told again: {"size": 4}   --> both
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Mapping
from typing import Any

_HEAP_TYPE = 1 << 9  # made by a class statement
_MANY = 10_000  # items: to look through more at each call would cost more than it saves


class Told:
    """What a name of a module or a class stands for, and what was in it when it was told."""

    __slots__ = ("_held", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self._held = _content(value)

    def is_untouched(self) -> bool:
        """Whether this process has changed nothing in it."""
        now = _content(self.value)
        if type(now) is dict and type(self._held) is dict:
            return now.keys() == self._held.keys() and all(
                map(operator.is_, now.values(), self._held.values())
            )
        return len(now) == len(self._held) and all(map(operator.is_, now, self._held))

    def learn(self, value: Any) -> None:
        """The program tells it again.

        What this process has changed in it stays, the rest becomes as it is there.
        """
        told, held, here = _content(value), self._held, _entries(self.value)
        if here is None or type(held) is not dict or type(told) is not dict:
            return
        for name in told.keys() | held.keys():
            if (name in here) is not (name in held) or (
                name in here and here[name] is not held[name]
            ):
                continue
            if name in told:
                here[name] = told[name]
            else:
                del here[name]
        self._held = told


def untouched(
    told_before: Mapping[str, Told], now: Mapping[str, Any], told: dict[str, Any]
) -> dict[str, Any]:
    """Those of the names that are `told` which are to be set.

    What this process has changed in the others stays.
    """
    news = {}
    for name, value in told.items():
        before = told_before.get(name)
        if name not in now:
            news[name] = value
        elif before is not None and before.value is now[name]:
            if before.is_untouched():
                news[name] = value
            else:
                before.learn(value)
    return news


def _entries(value: Any) -> Any:
    """The dictionary that holds what is in a dictionary or an object.

    None where the value is something else.
    """
    kind = type(value)
    if issubclass(kind, dict):
        return value
    return None if issubclass(kind, type) else getattr(value, "__dict__", None)


def _content(value: Any) -> Any:
    """What is in a container or an object, as a copy.

    Of large ones it holds nothing but that they are large.
    """
    kind = type(value)
    if issubclass(kind, dict | list | set | deque):
        if len(value) > _MANY:
            return (_content,)
        return dict(value) if issubclass(kind, dict) else tuple(value)
    if type(entries := _entries(value)) is dict:
        return dict(entries)
    if not kind.__flags__ & _HEAP_TYPE or issubclass(kind, type):
        return ()
    try:
        state: Any = object.__getstate__(value)
        return tuple(state[1].values())
    except Exception:  # it has none, or was made by an extension
        return ()
