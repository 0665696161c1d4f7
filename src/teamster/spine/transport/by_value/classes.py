# SPDX-License-Identifier: BSD-3-Clause
"""Classes by value: taken apart by cloudpickle, with what it loses.

It loses something of slots, of enumerations, and of bases that take part.
"""

from __future__ import annotations

import abc
import copyreg
import enum
import functools
import operator
import sys
import types
import typing
from collections.abc import Callable
from typing import Any

from cloudpickle.cloudpickle import _dynamic_class_reduce

from teamster.spine.transport.by_value import originals
from teamster.spine.transport.by_value.locks import with_own_locks
from teamster.spine.transport.by_value.modules import namespace

_OF_ENUM = ("_name_", "_value_", "_sort_order_", "__objclass__")  # what every member has
_ABSTRACT = ("collections.abc", "numbers", "os", "io", "contextlib", "importlib.abc")
# What there must be before a ctypes structure gets its fields
_OF_STRUCTURE = ("_anonymous_", "_pack_")


def take_class_apart(kind: type, mentioned: dict[str, Any]) -> Any:
    """Reduce a class by value; `mentioned`: globals of its module that it needs beside."""
    ctypes = sys.modules.get("ctypes")
    if ctypes is not None and (reduced := _reduce_type_of_c(kind, ctypes)) is not None:
        return reduced
    if typing.is_typeddict(kind):
        return _make_typed_dict, _parts_of_typed_dict(kind)
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
        _registrations(kind),
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


_KEYS = ("__total__", "__required_keys__", "__optional_keys__")


def _parts_of_typed_dict(kind: Any) -> tuple[Any, ...]:
    """It has no bases that could be told: what it has of them is among its own."""
    kept = {name: getattr(kind, name) for name in (*_KEYS, "__doc__", "__module__", "__qualname__")}
    return kind.__name__, dict(kind.__annotations__), kept


def _make_typed_dict(name: str, fields: dict[str, Any], kept: dict[str, Any]) -> Any:
    make: Any = typing.TypedDict
    made = make(name, fields)
    for attribute, value in kept.items():
        setattr(made, attribute, value)
    return made


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


def _registrations(kind: type) -> tuple[list[Any], Any]:
    """What the program has registered it with.

    That is abstract classes of the standard library of which it is a virtual subclass, and a
    function that reduces its objects.
    """
    return _abstract_of(abc.get_cache_token()).get(kind, []), copyreg.dispatch_table.get(kind)


@functools.lru_cache(maxsize=1)
def _abstract_of(_: object) -> dict[type, list[Any]]:
    """Abstract classes by what is registered with them, for all that was registered so far."""
    found: dict[type, list[Any]] = {}
    dump: Callable[[type], Any] = sys.modules["_abc"]._get_dump
    for name in _ABSTRACT:
        for each in list(vars(sys.modules[name]).values()) if name in sys.modules else ():
            for one in dump(each)[0] if isinstance(each, abc.ABCMeta) else ():
                if (kind := one()) is not None:
                    found.setdefault(kind, []).append(each)
    return found


def _fill_class(kind: type, parts: Any) -> None:
    fill, state, module, mentioned, (abstract, reduce) = parts
    if originals.is_mine(kind):
        return
    for each in abstract:
        each.register(kind)
    if reduce is not None:
        copyreg.pickle(kind, reduce)
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
