# SPDX-License-Identifier: BSD-3-Clause
"""Classes by value: taken apart by cloudpickle, with what it loses.

It loses something of slots, of enumerations, and of bases that take part.
"""

from __future__ import annotations

import enum
import operator
import sys
import types
from collections.abc import Callable
from typing import Any

from cloudpickle.cloudpickle import _dynamic_class_reduce

from teamster.spine.transport.by_value import originals
from teamster.spine.transport.by_value.locks import with_own_locks
from teamster.spine.transport.by_value.modules import namespace

_OF_ENUM = ("_name_", "_value_", "_sort_order_", "__objclass__")  # what every member has
# What there must be before a ctypes structure gets its fields
_OF_STRUCTURE = ("_anonymous_", "_pack_")


def take_class_apart(kind: type, mentioned: dict[str, Any]) -> Any:
    """Reduce a class by value; `mentioned`: globals of its module that it needs beside."""
    ctypes = sys.modules.get("ctypes")
    if ctypes is not None and (reduced := _reduce_type_of_c(kind, ctypes)) is not None:
        return reduced
    make, arguments, (attributes, slots), _, _, fill = _dynamic_class_reduce(kind)
    if issubclass(kind, enum.Enum):
        bases, name, qualname, _, *rest = arguments
        members = kind.__members__
        values = {each: member.value for each, member in members.items()}
        attributes = {each: value for each, value in attributes.items() if each not in members}
        state = (
            fill,
            (attributes, slots),
            {each: _attributes_of(member) for each, member in members.items()},
        )
        return make, (bases, name, qualname, values, *rest), state, None, None, _fill_enum
    if vars(kind).get("__slots__"):  # an empty one is a named tuple's, which sets it itself
        arguments[3]["__slots__"] = vars(kind)["__slots__"]
    if ctypes is not None and issubclass(kind, ctypes.Structure | ctypes.Union):
        arguments[3].update(
            {each: attributes.pop(each) for each in _OF_STRUCTURE if each in attributes}
        )
        attributes = {
            each: value for each, value in attributes.items() if type(value).__name__ != "CField"
        }
    parts = (
        fill,
        (with_own_locks(attributes, kind.__module__, kind.__qualname__), slots),
        kind.__module__,
        mentioned,
    )
    return _make_class, (make, *arguments), parts, None, None, _fill_class


def _reduce_type_of_c(kind: type, ctypes: types.ModuleType) -> Any:
    """Reduce what ctypes makes and has no name for.

    That is metaclasses, numbers of another byte order, arrays, pointers; None for other types.
    """
    for base in (
        ctypes.Structure,
        ctypes.Union,
        ctypes.Array,
        ctypes._SimpleCData,
        ctypes._Pointer,
    ):
        if kind is type(base):
            return type, (base,)
    name, _, order = kind.__name__.rpartition("_")
    if getattr(native := getattr(ctypes, name, None), f"__ctype_{order}__", None) is kind:
        return getattr, (native, f"__ctype_{order}__")
    if kind.__bases__ == (ctypes.Array,):
        return operator.mul, (kind._type_, kind._length_)  # type: ignore[attr-defined]
    if kind.__bases__ == (ctypes._Pointer,):
        return ctypes.POINTER, (kind._type_,)  # type: ignore[attr-defined]
    return None


def _attributes_of(member: enum.Enum) -> dict[str, Any]:
    """What the class's ``__init__`` or ``__new__`` has given a member."""
    return {name: value for name, value in vars(member).items() if name not in _OF_ENUM}


def _make_class(make: Callable[..., type], *arguments: Any) -> type:
    """Make it, empty.

    The ``__init_subclass__`` of its bases is left out where it wants arguments that are not known
    any more.
    """
    try:
        return make(*arguments)
    except Exception:
        owner = _who_takes_part(types.resolve_bases(arguments[2]))
        if owner is None:
            raise
        took_part = vars(owner)["__init_subclass__"]
        owner.__init_subclass__ = classmethod(lambda kind, **_: None)  # type: ignore[assignment]
        try:
            # What was done to the class is among its attributes, which come next
            return make(*arguments)
        finally:
            owner.__init_subclass__ = took_part  # type: ignore[method-assign]


def _who_takes_part(bases: tuple[Any, ...]) -> type | None:
    kinds = (kind for base in bases for kind in base.__mro__)
    return next(
        (kind for kind in kinds if kind is not object and "__init_subclass__" in vars(kind)), None
    )


def _fill_class(kind: type, parts: Any) -> None:
    fill, state, module, mentioned = parts
    if originals.is_mine(kind):
        return
    if mentioned:
        originals.plant(namespace(module), mentioned)
    attributes, slots = state
    if "_fields_" in vars(kind):  # of a ctypes structure that was filled before: they are final
        attributes.pop("_fields_", None)
    originals.fill_class(kind, attributes, lambda news: fill(kind, (news, slots)))


def _fill_enum(kind: type[enum.Enum], parts: Any) -> None:
    fill, state, attributes = parts
    if originals.is_mine(kind):
        return
    fill(kind, state)
    for name, values in attributes.items():
        vars(kind.__members__[name]).update(values)
