# SPDX-License-Identifier: BSD-3-Clause
"""Locks of a script, which each process has for itself, as where each process runs the script.

They are globals, or attributes of classes.

::

    LOCK = threading.Lock()  program: its own
                             worker:  one of its own, the same for all functions that name it
"""

from __future__ import annotations

import threading
from typing import Any

from teamster.spine.transport.by_value import modules

_MAKERS = {type(threading.Lock()): "Lock", type(threading.RLock()): "RLock"}


class _OwnLock:
    """Stands for a lock on its way."""

    def __init__(self, maker: str, *place: str) -> None:
        self._parts = maker, *place

    def __reduce__(self) -> Any:
        return _own_lock, self._parts


def with_own_locks(values: dict[str, Any], module: str, owner: str = "") -> dict[str, Any]:
    """Values by name, of a module or a class, in a form in which their locks can travel.

    Args:
        values: by name.
        module: the name of the one that has them.
        owner: the qualified name of the class that has them; empty for globals.
    """
    locks = {name: _MAKERS[type(value)] for name, value in values.items() if type(value) in _MAKERS}
    return (
        {**values, **{name: _OwnLock(maker, module, owner, name) for name, maker in locks.items()}}
        if locks
        else values
    )


def _own_lock(maker: str, module: str, owner: str, name: str) -> Any:
    """The lock that this process has under that name; one that is free where it has none yet."""
    found: Any = modules.namespace(module)
    for part in owner.split(".") if owner else ():
        found = found.get(part) if isinstance(found, dict) else getattr(found, part, None)
    found = found.get(name) if isinstance(found, dict) else getattr(found, name, None)
    return found if _MAKERS.get(type(found)) == maker else getattr(threading, maker)()
