# SPDX-License-Identifier: BSD-3-Clause
"""Objects that are nothing but themselves: ``UNSET = object()``, ``dataclasses.MISSING``.

Code asks ``value is UNSET``, and a copy is another object. So one that is a global of a module is
known by its place.
"""

from __future__ import annotations

import copyreg
import sys
from typing import Any

from teamster.spine.transport.by_value import modules, originals

_PICKLED = b"\x8c\x06object\x94\x93"  # an `object()`, or the class, as plain pickle writes it first
_BEGINNING = 1 << 16  # bytes in which it is looked for: a module stands at the front of a pickle
_places: dict[int, tuple[str, str]] = {}
_surveyed = (-1, 0)  # what it was looked at for last


def may_hold_one(data: bytes) -> bool:
    """Whether there may be an ``object()`` in a pickle.

    It is looked for near the beginning only, since a look at a megabyte takes 0.4 ms.
    """
    return data.find(_PICKLED, 0, _BEGINNING) >= 0


def place_of(value: Any, reduced: Any) -> tuple[str, str] | None:
    """Module and name of a global that is `value`.

    Only of one that has no state, where it is `reduced` to its class.
    """
    if reduced[0] is not copyreg.__newobj__ or len(reduced[1]) > 1:  # type: ignore[attr-defined]
        return None
    if any(each is not None for each in reduced[3:]):
        return None
    if type(value) is object:
        return _place_of_object(value)
    home = type(value).__module__
    return next(((home, name) for name, each in _globals_of(home) if each is value), None)


def _place_of_object(value: object) -> tuple[str, str] | None:
    """Any module may have one; they are looked through once a call at most."""
    global _places, _surveyed
    place = _places.get(id(value))
    if (
        place is not None
        and getattr(sys.modules.get(place[0]), "__dict__", {}).get(place[1]) is value
    ):
        return place
    now = originals.call, len(sys.modules)
    if _surveyed == now:
        return None
    # What a library calls it wins
    names = sorted(sys.modules, key=modules.by_value.__contains__, reverse=True)
    _places = {
        id(each): (module, name)
        for module in names
        for name, each in _globals_of(module)
        if type(each) is object
    }
    _surveyed = now
    return _places.get(id(value))


def _globals_of(module: str) -> list[tuple[str, Any]]:
    values = getattr(sys.modules.get(module), "__dict__", {})
    # Where the names differ it is another name of the module, as __mp_main__ is
    return list(values.items()) if values.get("__name__") == module else []
