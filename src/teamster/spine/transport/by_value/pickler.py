# SPDX-License-Identifier: BSD-3-Clause
"""Picklers for what plain pickle cannot send: definitions of ``__main__``, by value or by a key.

::

    ItemPickler        program to worker  a key for each original, its definition beside the pickle
    DefinitionPickler  program to worker  everything inside, each original marked with its key
    HomePickler        worker to program  a key for what came from it, by value for what is new

All functions of such a module share *one* namespace in a worker, so a global that the initializer
set is there when the task looks. cloudpickle takes functions and classes apart; it is slow to
import, so this file is imported when it is needed first.
"""

from __future__ import annotations

import contextlib
import contextvars
import copyreg
import enum
import functools
import io
import pickle
import sys
import types
import typing
from collections.abc import Callable
from importlib import import_module
from typing import Any, ClassVar

import cloudpickle
from cloudpickle.cloudpickle import _PICKLE_BY_VALUE_MODULES

from teamster.spine.transport import mapped_files, multiprocessing_objects
from teamster.spine.transport.by_value import mentions, modules, originals, sentinels
from teamster.spine.transport.by_value.classes import take_class_apart
from teamster.spine.transport.by_value.context_variables import (
    find_context_variable,
    locate_context_variable,
    take_context_variable_apart,
)
from teamster.spine.transport.by_value.locks import with_own_locks
from teamster.spine.transport.by_value.namespaces import (
    Namespace,
    fill_function,
    fill_function_at_home,
    fill_module,
    find_module,
    namespace_name,
)
from teamster.spine.transport.by_value.originals import Original
from teamster.spine.transport.by_value.recipes import recipe_of, with_constants
from teamster.spine.transport.multiprocessing_objects import Passing
from teamster.spine.transport.parcel import Definition, Parcel, keep_inside
from teamster.spine.transport.tensors import Reducers, reducers

_PROTOCOL = 5  # the first with buffers beside the pickle (PEP 574)
_LARGE_BYTES = 1 << 13  # a pickler that has written so much is not kept: its memo stays that large
_TABLE = cloudpickle.Pickler._dispatch_table
_HEAP_TYPE = 1 << 9  # made by a class statement: how to make one of others is not known
_Cached = type(functools.lru_cache(int))
_DEFINITION = type, types.FunctionType


class _ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc]
    """What the three have in common."""

    spares: ClassVar[list[Any]]

    def __init__(self) -> None:
        self._stream = io.BytesIO()
        pickle.Pickler.__init__(self, self._stream, _PROTOCOL, buffer_callback=self._keep)
        self.globals_ref: dict[int, Any] = {}
        self._whole = False
        self._known: dict[Any, Any] = {}
        self._buffers: list[memoryview] = []
        self._needs: dict[int, Definition] = {}
        self._keys: list[int] = []

    @classmethod
    def pack(cls, value: object, *, whole: bool = False) -> Parcel:
        """Pickle `value`; with `whole`, its buffers stay inside.

        Raises:
            Exception: it does not pickle by value either.
        """
        try:
            pickler = cls.spares.pop()  # to make one costs as much as to pickle a small object
        except IndexError:
            pickler = cls()
        pickler._whole = whole
        pickler._known = (
            mapped_files.reducers(multiprocessing_objects.reducers(for_any_socket=True))
            or copyreg.dispatch_table
        )
        try:
            with Passing() as passed:
                pickler.dump(value)
            data = pickler._stream.getvalue()
            needs = (
                *pickler._needs.values(),
                *((Definition(0, {}, (), pickler._keys),) if pickler._keys else ()),
            )
            parcel = Parcel(data, pickler._buffers, needs, passed)
        finally:
            # Its callback makes it a cycle, which would keep the value until the next collection
            pickler._reset()
        if len(data) < _LARGE_BYTES:
            cls.spares.append(pickler)
        return parcel

    def _reset(self) -> None:
        self.clear_memo()
        self._stream.seek(0)
        self._stream.truncate()
        self.globals_ref.clear()
        self._buffers, self._needs, self._keys = [], {}, []

    def _keep(self, buffer: pickle.PickleBuffer) -> bool:
        """Large contiguous buffers leave the pickle, the others stay inside."""
        return self._whole or keep_inside(buffer, self._buffers)

    def reducer_override(self, value: Any) -> Any:
        """Reduce functions, classes, and what pickles by a name; leave the rest to pickle."""
        kind = type(value)
        if isinstance(value, _DEFINITION):
            if _is_plainly_importable(value):
                return NotImplemented
            return self._reduce_known(value) or self._reduce_definition(value)
        if (recipe := recipe_of(kind)) is not None:
            return recipe(value)
        if kind is contextvars.ContextVar:
            return self._reduce_context_variable(value)
        if issubclass(kind, types.ModuleType):
            return self._reduce_module(value)
        if (reduce := self._known.get(kind)) is not None:
            return reduce(value)
        if kind in _TABLE:
            return NotImplemented
        if isinstance(table := reducers(self._known), Reducers) and isinstance(
            value, sys.modules["torch"].Tensor
        ):
            with contextlib.suppress(KeyError):
                return table[kind](value)
        return self._reduce_object(value)

    def _reduce_object(self, value: Any) -> Any:
        """Reduce what says itself how: by a name, as a sentinel that a module holds, by parts."""
        reduced = value.__reduce_ex__(_PROTOCOL)
        if type(reduced) is str:
            return self._reduce_named(value, reduced)
        if len(reduced) < 3 or reduced[2] is not None:
            return with_constants(value, reduced)
        place = sentinels.place_of(value, reduced)
        if place is None:
            return reduced
        return (
            self._reduce_original(value, place)
            if place[0] in modules.by_value
            else (getattr, (sys.modules[place[0]], place[1]))
        )

    def _reduce_known(self, value: Any) -> Any:
        """Reduce what has travelled before, without a further look; None where that takes one."""
        return None

    def _reduce_definition(self, value: Any) -> Any:
        """Reduce a function or a class."""
        place = _place_of(value)
        if place is not None and place[0] not in modules.by_value:
            return super().reducer_override(value)  # it knows types that pickle does not find
        if place is None and isinstance(value, type) and value.__module__ == "builtins":
            return super().reducer_override(value)
        if place is None and isinstance(value, types.FunctionType) and "<" in value.__qualname__:
            # A lambda, or local to a function: made anew wherever it comes
            return self._take_apart(value)
        return self._reduce_original(value, place)

    def _reduce_named(self, value: Any, name: str) -> Any:
        """Reduce what pickles by `name`."""
        place = _place_of(value, name)
        if place is not None and place[0] not in modules.by_value:
            return name
        if isinstance(value, enum.Enum):
            return getattr, (type(value), value.name)
        return self._reduce_original(value, place)

    def _reduce_module(self, module: types.ModuleType) -> Any:
        name = module.__name__
        if sys.modules.get(name) is not module:
            return NotImplemented
        if name not in modules.by_value:
            # Also one of a class of its own, as packages make for attributes that they look up
            return NotImplemented if type(module) is types.ModuleType else (import_module, (name,))
        own = {} if name == "__main__" else vars(module)
        values = {key: each for key, each in own.items() if not key.startswith("__")}
        kind = () if type(module) is types.ModuleType else (type(module),)
        return find_module, (name, *kind), values, None, None, fill_module

    def _reduce_context_variable(self, variable: contextvars.ContextVar[Any]) -> Any:
        place = locate_context_variable(variable)
        if place is None or place[0] in modules.by_value:
            return self._reduce_original(variable, place)
        return find_context_variable, place

    def _reduce_original(self, value: Any, place: tuple[str, str] | None) -> Any:
        raise NotImplementedError

    def _take_apart(self, value: Any) -> Any:
        """Reduce a definition by value."""
        if isinstance(value, types.FunctionType):
            return self._take_function_apart(value)
        if isinstance(value, type):
            return take_class_apart(value, self._mentioned(value))
        if isinstance(value, _Cached):
            parameters = value.cache_parameters()
            return (
                _make_cached,
                (parameters["maxsize"], parameters["typed"], value.__wrapped__),
                vars(value),
            )
        kind = type(value)
        if kind is contextvars.ContextVar:
            return take_context_variable_apart(value)
        if kind.__module__ == "typing" and kind is not typing.NewType:
            return kind, (value.__name__,)
        if not kind.__flags__ & _HEAP_TYPE and kind is not object:
            raise pickle.PicklingError(f"{value!r} is not what its module has under that name")
        return copyreg.__newobj__, (kind,), object.__getstate__(value)  # type: ignore[attr-defined]

    def _mentioned(self, kind: type) -> dict[str, Any]:
        return mentions.of_class(kind)

    def _take_function_apart(self, function: types.FunctionType) -> Any:
        name = namespace_name(function.__globals__)
        if name is not None:
            self.globals_ref[id(function.__globals__)] = Namespace(name)
        make, arguments, state, _, _, fill = self._dynamic_function_reduce(function)
        if name is not None:
            state[1]["__globals__"] = with_own_locks(
                {**mentions.of_function(function, _travels), **state[1]["__globals__"]}, name
            )
        return make, arguments, (fill, state), None, None, fill_function


class DefinitionPickler(_ByValuePickler):
    """Everything inside of one pickle, each original marked with its key."""

    spares: ClassVar[list[Any]] = []

    def _reduce_original(self, value: Any, place: tuple[str, str] | None) -> Any:
        make, arguments, *rest = self._take_apart(value)
        where = place if place is not None and "." not in place[1] else None
        key = originals.original_of(value).key
        self._keys.append(key)
        return originals.obtain, (key, where, make, *arguments), *rest


class ItemPickler(_ByValuePickler):
    """Originals by key; what has to be sent before is in what its parcel needs."""

    spares: ClassVar[list[Any]] = []

    def _reduce_known(self, value: Any) -> Any:
        original = originals.known(value)
        if (
            original is None
            or original.call != originals.call
            or (definition := original.definition) is None
        ):
            return None
        self._needs[definition.number] = definition
        return originals.recall, (definition.number, original.key)

    def _reduce_original(self, value: Any, place: tuple[str, str] | None) -> Any:
        original = originals.original_of(value)
        definition = _define(original, value)
        self._needs[definition.number] = definition
        return originals.recall, (definition.number, original.key)


class HomePickler(_ByValuePickler):
    """What came from the program by key; by value what is new, without the program's globals."""

    spares: ClassVar[list[Any]] = []

    def _mentioned(self, kind: type) -> dict[str, Any]:
        return {}

    def _reduce_known(self, value: Any) -> Any:
        original = originals.known(value)
        return None if original is None else (originals.recall, (0, original.key))

    def _reduce_original(self, value: Any, place: tuple[str, str] | None) -> Any:
        if (known := self._reduce_known(value)) is not None:
            return known
        if (
            place is not None
            and place[0] == "__main__"
            and originals.is_inherited(place[1], find_module("__main__").__dict__)
        ):
            return NotImplemented if isinstance(value, type | types.FunctionType) else place[1]
        return self._take_apart(value)

    def _take_function_apart(self, function: types.FunctionType) -> Any:
        name = namespace_name(function.__globals__)
        if name is None:
            return super()._take_function_apart(function)
        make, (code, _, *more), state, _, _, fill = self._dynamic_function_reduce(function)
        told = state[1]["__globals__"]
        here = function.__globals__
        state[1]["__globals__"] = {
            each: told[each] for each in told if not originals.is_planted(here, each)
        }
        return (
            make,
            (code, Namespace(name, tuple(told)), *more),
            (fill, state),
            None,
            None,
            fill_function_at_home,
        )


# --- definitions ----------------------------------------------------------------------------------


def _define(original: Original, value: Any) -> Definition:
    """The definition of `value` as it is now: the former one where that says the same."""
    call = originals.call
    if original.definition is not None and original.call == call:
        return original.definition
    parcel = DefinitionPickler.pack(value, whole=True)
    if original.definition is None or original.definition.data != parcel.data:
        keys = [key for each in parcel.needs for key in each.keys]
        original.definition = Definition(originals.next_number(), parcel.data, parcel.passed, keys)
    original.call = call
    return original.definition


def _travels(value: Any) -> bytes:
    return DefinitionPickler.pack(value, whole=True).data


# --- where things are -----------------------------------------------------------------------------


def _is_plainly_importable(value: Any) -> bool:
    """A short look at a function or class: is it a global of a module that others can import?"""
    module = value.__module__
    if module in modules.by_value or _PICKLE_BY_VALUE_MODULES:
        return False
    return getattr(sys.modules.get(module), "__dict__", {}).get(value.__qualname__) is value


def _place_of(value: Any, name: str | None = None) -> tuple[str, str] | None:
    """Module and name under which `value` is found, None where it is not."""
    name = name or getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    module = getattr(value, "__module__", None)
    if not isinstance(module, str) and name is not None:
        module = pickle.whichmodule(value, name)  # type: ignore[attr-defined]
    if not isinstance(module, str) or not isinstance(name, str):
        return None
    found: Any = sys.modules.get(module)
    if found is None:
        return None
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except Exception:
            return None
    return (module, name) if found is value else None


# --- putting together -----------------------------------------------------------------------------


def _make_cached(maxsize: int | None, typed: bool, function: Callable[..., Any]) -> Any:
    return functools.lru_cache(maxsize, typed)(function)
