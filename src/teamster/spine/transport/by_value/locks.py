# SPDX-License-Identifier: BSD-3-Clause
"""Locks of a script, which each process has for itself, as where each process runs the script.

So have events, semaphores, what is of each thread, and queues that are empty. They are globals, or
attributes of classes.

::

    LOCK = threading.Lock()  program: its own
                             worker:  one of its own, the same for all functions that name it
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from typing import Any

from teamster.spine.transport.by_value import modules

_MAKERS = {
    type(threading.Lock()): "threading.Lock",
    type(threading.RLock()): "threading.RLock",
    threading.Event: "threading.Event",
    threading.Condition: "threading.Condition",
    threading.Semaphore: "threading.Semaphore",
    threading.BoundedSemaphore: "threading.BoundedSemaphore",
    threading.local: "threading.local",
}
_QUEUES = ("Queue", "LifoQueue", "PriorityQueue", "SimpleQueue")


class _Own:
    """Stands for a lock on its way."""

    def __init__(self, *parts: Any) -> None:
        self._parts = parts

    def __reduce__(self) -> Any:
        return _own, self._parts


def with_own_locks(values: dict[str, Any], module: str, owner: str = "") -> dict[str, Any]:
    """Values by name, of a module or a class, in a form in which their locks can travel.

    Args:
        values: by name.
        module: the name of the one that has them.
        owner: the qualified name of the class that has them; empty for globals.
    """
    locks = {
        name: _Own(maker, _arguments(value), _flag(value), module, owner, name)
        for name, value in values.items()
        if (maker := _maker(value)) and not _shares_its_lock(value, values.values())
    }
    return {**values, **locks} if locks else values


def is_own_lock(value: Any) -> bool:
    """Whether each process has one like it for itself, whatever else there is."""
    return _maker(value) is not None and type(value) is not threading.Condition


def _maker(value: Any) -> str | None:
    kind = type(value)
    if kind.__module__ in ("queue", "_queue"):
        return f"queue.{kind.__name__}" if kind.__name__ in _QUEUES and value.empty() else None
    return _MAKERS.get(kind)


def _arguments(value: Any) -> tuple[int, ...]:
    """What it is made with."""
    if isinstance(value, threading.Semaphore):
        return (getattr(value, "_initial_value", value._value),)
    return (value.maxsize,) if hasattr(value, "maxsize") else ()


def _flag(value: Any) -> bool | None:
    return value.is_set() if isinstance(value, threading.Event) else None


def _shares_its_lock(value: Any, others: Iterable[Any]) -> bool:
    """A condition of another's lock is nothing without that."""
    return type(value) is threading.Condition and any(
        each is value._lock or (each is not value and getattr(each, "_lock", None) is value._lock)  # type: ignore[attr-defined]
        for each in others
    )


def _own(
    maker: str, arguments: tuple[int, ...], flag: bool | None, module: str, owner: str, name: str
) -> Any:
    """The lock that this process has under that name; one that is free where it has none yet."""
    found: Any = modules.namespace(module)
    for part in owner.split(".") if owner else ():
        found = found.get(part) if isinstance(found, dict) else getattr(found, part, None)
    found = found.get(name) if isinstance(found, dict) else getattr(found, name, None)
    home, _, kind = maker.partition(".")
    if _maker(found) != maker and f"queue.{type(found).__name__}" != maker:
        __import__(home)
        found = getattr(sys.modules[home], kind)(*arguments)
    if flag is not None:
        (found.set if flag else found.clear)()
    return found
