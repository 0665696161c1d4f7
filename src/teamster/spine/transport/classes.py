# SPDX-License-Identifier: BSD-3-Clause
"""Classes by value: taken apart by cloudpickle, with what it loses of slots, of enumerations, and of bases that take part."""

from __future__ import annotations

import enum
import types
from collections.abc import Callable
from typing import Any

from cloudpickle.cloudpickle import _dynamic_class_reduce

from teamster.spine.transport import originals

_OF_ENUM = ("_name_", "_value_", "_sort_order_", "__objclass__")  # what every member has


def take_class_apart(kind: type) -> Any:
    """Reduce a class by value."""
    make, arguments, (attributes, slots), _, _, fill = _dynamic_class_reduce(kind)
    if issubclass(kind, enum.Enum):
        bases, name, qualname, _, *rest = arguments
        members = kind.__members__
        values = {each: member.value for each, member in members.items()}
        attributes = {each: value for each, value in attributes.items() if each not in members}
        state = fill, (attributes, slots), {each: _attributes_of(member) for each, member in members.items()}
        return make, (bases, name, qualname, values, *rest), state, None, None, _fill_enum
    if vars(kind).get("__slots__"):  # an empty one is a named tuple's, which sets it itself
        arguments[3]["__slots__"] = vars(kind)["__slots__"]
    return _make_class, (make, *arguments), (fill, (attributes, slots)), None, None, _fill_class


def _attributes_of(member: enum.Enum) -> dict[str, Any]:
    """What the class's ``__init__`` or ``__new__`` has given a member."""
    return {name: value for name, value in vars(member).items() if name not in _OF_ENUM}


def _make_class(make: Callable[..., type], *arguments: Any) -> type:
    """Make it, empty; without the ``__init_subclass__`` of its bases where that wants arguments that nobody knows any more."""
    try:
        return make(*arguments)
    except Exception:
        owner = _who_takes_part(types.resolve_bases(arguments[2]))
        if owner is None:
            raise
        took_part = vars(owner)["__init_subclass__"]
        owner.__init_subclass__ = classmethod(lambda kind, **_: None)  # type: ignore[assignment]
        try:
            return make(*arguments)  # what was done to the class is among its attributes, which come next
        finally:
            owner.__init_subclass__ = took_part  # type: ignore[method-assign]


def _who_takes_part(bases: tuple[Any, ...]) -> type | None:
    kinds = (kind for base in bases for kind in base.__mro__)
    return next((kind for kind in kinds if kind is not object and "__init_subclass__" in vars(kind)), None)


def _fill_class(kind: type, parts: Any) -> None:
    fill, state = parts
    if not originals.is_mine(kind):
        fill(kind, state)


def _fill_enum(kind: type[enum.Enum], parts: Any) -> None:
    fill, state, attributes = parts
    if originals.is_mine(kind):
        return
    fill(kind, state)
    for name, values in attributes.items():
        vars(kind.__members__[name]).update(values)
