# SPDX-License-Identifier: BSD-3-Clause
"""What code does to things outside of it, read from the code: one item that is run may not do it.

::

    failed.append(item), table[key] = ..., self.count += 1, helper(failed)
        --> it changes what it carries: not in processes
    os.chdir(...), redirect_stdout(...), os.environ[key] = ..., seed(...)
        --> it sets what all threads share: not in threads

The instructions are gone through once, in their order, with a stack of what is known: values that
the function carries. What becomes of others is passed over.
"""

from __future__ import annotations

import os
import threading
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from time import thread_time
from typing import Any

from teamster.spine.plan.safety.captures import is_library, is_users
from teamster.spine.plan.safety.instructions import NOTHING, UNKNOWN, Interpreter, Thing
from teamster.spine.plan.safety.known_effects import (
    BUFFERS,
    CHANGING,
    CHANGING_FIRST,
    ELSEWHERE,
    FOR_ALL,
    TIMERS,
    WRITING,
    home_of,
    is_generator,
    is_of_container,
)


@dataclass(frozen=True, slots=True)
class _Made:
    """What a call has made of a class: it alone has it, so that a change does no harm."""

    kind: type


@dataclass
class Effects:
    """What a function may do.

    Args:
        deadline: moment of `time.thread_time` at which to be content with what was found.

    Attributes:
        changed: names of what it changes.
        drawn: names of what it asks the global generators of random numbers for.
        shared: names of what it sets for all threads.
        lone: names of what it returns that is told by its identity alone.
        numbered: functions that it asks for numbers that each process gives anew.
        own: objects that it uses, of which each thread has its own.
        filled: attributes that it sets in them.
        learning: what of torch it uses that gathers gradients.
        trains: whether it computes gradients.

    Example:
        >>> failed = []
        >>> def note(item):
        ...     if item < 0:
        ...         failed.append(item)
        >>> Effects(thread_time() + 1).look_at(note).changed
        ['failed']
    """

    deadline: float
    changed: list[str] = field(default_factory=list)
    drawn: list[str] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)
    numbered: list[str] = field(default_factory=list)
    own: dict[str, Any] = field(default_factory=dict)
    filled: set[str] = field(default_factory=set)
    learning: list[str] = field(default_factory=list)
    trains: bool = False
    lone: list[str] = field(default_factory=list)
    _depth: int = 0
    _seen: set[tuple[Any, ...]] = field(default_factory=set)

    def look_at(
        self, function: Callable[..., Any], given: dict[int | str, Thing] | None = None
    ) -> Effects:
        """Go through a function, and those that it calls.

        Args:
            function: anything that can be called.
            given: its arguments, as far as they are known.

        Returns:
            The same object.
        """
        given = given or {}
        if isinstance(function, partial):
            bound: dict[int | str, Thing] = {
                name: Thing(each, name) for name, each in function.keywords.items()
            }
            bound |= {
                i: Thing(each, f"argument {i} of the partial")
                for i, each in enumerate(function.args)
            }
            return self.look_at(function.func, bound | _shifted(given, len(function.args)))
        if isinstance(function, types.MethodType):
            return self.look_at(
                function.__func__, {0: _owner(function.__self__), **_shifted(given, 1)}
            )
        if isinstance(function, types.FunctionType):
            self._enter(function, given)
        elif isinstance(method := _find(type(function), "__call__"), types.FunctionType):
            self._enter(method, {0: _owner(function), **_shifted(given, 1)})
        return self

    def _enter(self, function: types.FunctionType, given: dict[int | str, Thing]) -> None:
        code = function.__code__
        key = (id(function), *((where, id(thing.value)) for where, thing in given.items()))
        if key in self._seen or thread_time() > self.deadline or is_library(code.co_filename):
            return
        self._seen.add(key)
        parameters = code.co_varnames[: code.co_argcount]
        variables = _defaults(function)
        for where, thing in given.items():
            if isinstance(where, str) or where < len(parameters):
                variables[where if isinstance(where, str) else parameters[where]] = thing
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            try:
                variables[name] = self.get(Thing(cell.cell_contents, name))
            except ValueError:  # not assigned yet
                continue
        self._depth += 1
        self._go_through(code, function.__globals__, variables)
        self._depth -= 1

    def _go_through(
        self, code: types.CodeType, names: dict[str, Any], variables: dict[str, Thing]
    ) -> None:
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._go_through(
                    constant,
                    names,
                    {name: variables[name] for name in constant.co_freevars if name in variables},
                )
        self.trains |= "backward" in code.co_names
        if variables or code.co_names:
            Interpreter(names, dict(variables), self).run(code)

    def against_threads(self) -> str:
        """Why threads would not mean what the loop means; empty where nothing was found."""
        if self.shared:
            return f"it uses `{self.shared[0]}`, which sets something for all threads at once"
        if self.trains and self.learning:
            return (
                f"it trains `{self.learning[0]}`, whose gradients are those of one step at a time"
            )
        mine = (name for name, each in self.own.items() if vars(each).keys() - self.filled)
        return next(
            (
                f"it uses `{name}`, of which each thread has its own, and this one has set it"
                for name in mine
            ),
            "",
        )

    def against_processes(self, *, seeded: bool) -> str:
        """Why a copy in a process would mean something else; empty where nothing was found."""
        if self.changed:
            what = self.changed[0]
            return (
                "it changes its argument"
                if what.startswith("its argument")
                else f"it changes `{what}`, which it carries"
            )
        if self.trains and self.learning:
            return f"it trains `{self.learning[0]}`, which it carries"
        if self.drawn and not seeded:
            return (
                f"it draws from `{self.drawn[0]}`, whose order the loop keeps; with seed= each "
                "item has numbers of its own"
            )
        if self.lone:
            return f"it returns `{self.lone[0]}`, an object() that is told by its identity"
        if self.numbered:
            return f"it asks for `{self.numbered[0]}(...)`, which each process gives anew"
        timers = [name for name in self.shared if name in TIMERS and "signal" not in self.shared]
        return f"it uses `{timers[0]}`, whose signal only this process handles" if timers else ""

    # --- what the interpreter meets ---------------------------------------------------------------

    def set_in(self, thing: Thing, attribute: str) -> None:
        """An attribute or an element is set or deleted."""
        kind = type(thing.value)
        if kind is _Made:
            return
        if thing.library or (
            isinstance(thing.value, types.ModuleType) and _is_library(thing.value)
        ):
            _add(self.shared, f"{thing.name}.{attribute}" if attribute else thing.name)
        elif kind is threading.local:
            self.filled.add(attribute)
        elif not kind.__module__.startswith(ELSEWHERE):
            _add(self.changed, thing.name)

    def get_from(self, thing: Thing, name: str) -> Thing:
        """An attribute is asked for; a method that changes its object counts before its call."""
        value = thing.value
        if isinstance(value, types.ModuleType):
            found = value.__dict__.get(name, NOTHING)
            return self.get(Thing(found, f"{value.__name__}.{name}", _is_library(value)))
        if (name in CHANGING and is_of_container(type(value), name)) or (
            name in WRITING and type(value) in BUFFERS
        ):
            self.set_in(thing, "")
        elif is_generator(value) or (
            type(value).__module__ == "torch" and name.endswith("_") and not name.endswith("__")
        ):
            _add(self.changed, thing.name)
        own = getattr(value, "__dict__", None)
        if type(own) is dict and name in own:
            return self._see(Thing(own[name], f"{thing.name}.{name}", thing.library))
        return _method(value, name, thing)

    def get(self, thing: Thing) -> Thing:
        """A global, or an attribute of a module, is asked for."""
        value, name = thing.value, thing.name.rpartition(".")[2]
        self._see(thing)
        if value is id or value is hash:
            _add(self.numbered, name)
        packages = FOR_ALL.get(getattr(value, "__name__", name))
        if packages is not None and home_of(value) in packages:
            _add(self.shared, value.__name__)
        elif isinstance(value, types.BuiltinMethodType | types.MethodType) and is_generator(
            value.__self__
        ):
            _add(self.drawn, f"{home_of(value)}.{value.__name__}")
        return thing

    def _see(self, thing: Thing) -> Thing:
        """Note what is of this thread, or gathers gradients."""
        kind = type(thing.value)
        if kind is threading.local:
            self.own[thing.name] = thing.value
        elif hasattr(kind, "zero_grad") or (
            kind.__module__.startswith("torch")
            and getattr(thing.value, "requires_grad", None) is True
        ):
            _add(self.learning, thing.name)
        return thing

    def give(self, thing: Thing) -> None:
        """It is returned."""
        if type(thing.value) is object and thing.value is not NOTHING and self._depth == 1:
            _add(self.lone, thing.name)

    def call(self, target: Thing, given: dict[int | str, Thing]) -> Thing:
        """Something is called: functions of the program are entered, also those it hands on."""
        value = target.value
        for each in given.values():
            if isinstance(each.value, types.FunctionType | types.MethodType):
                self.look_at(each.value)
        if isinstance(value, type) and is_users(value):
            made = Thing(_Made(value), value.__name__)
            if isinstance(method := _find(value, "__init__"), types.FunctionType):
                self._enter(method, {0: made, **_shifted(given, 1)})
            return made
        if isinstance(value, types.BuiltinFunctionType | types.FunctionType):
            self._call_library(value, given)
        if isinstance(value, types.MethodType) and _is_of_library(value.__func__):
            self._call_back(_owner(value.__self__))
        elif isinstance(value, types.FunctionType | types.MethodType | partial):
            self.look_at(value, given)
        return UNKNOWN

    def _call_library(self, function: Any, given: dict[int | str, Thing]) -> None:
        """A function of a library, or a method of a container: what it changes is known."""
        name, owner = function.__name__, getattr(function, "__self__", None)
        if 0 in given and home_of(function) in CHANGING_FIRST.get(name, ()):
            self.set_in(given[0], "")
        elif name in CHANGING and owner is not None and is_of_container(type(owner), name):
            self.set_in(Thing(owner, name), "")
        elif name == "print" and type(given.get("file", UNKNOWN).value) in BUFFERS:
            self.set_in(given["file"], "")

    def _call_back(self, owner: Thing) -> None:
        """A method that is a library's may call any that the program has added."""
        kind = owner.value.kind if isinstance(owner.value, _Made) else type(owner.value)
        for each in kind.__mro__:
            for name, method in list(vars(each).items()):
                if isinstance(method, types.FunctionType) and not name.startswith("__"):
                    self._enter(method, {0: owner})


def _defaults(function: types.FunctionType) -> dict[str, Thing]:
    """Of the parameters that have one."""
    positional = function.__code__.co_varnames[: function.__code__.co_argcount]
    values = function.__defaults__ or ()
    named = dict(zip(positional[len(positional) - len(values) :], values, strict=True)) | (
        function.__kwdefaults__ or {}
    )
    return {name: Thing(value, f"default of {name}") for name, value in named.items()}


def _shifted(given: dict[int | str, Thing], by: int) -> dict[int | str, Thing]:
    return {
        where + by if isinstance(where, int) else where: thing for where, thing in given.items()
    }


def _owner(value: Any) -> Thing:
    return value if isinstance(value, Thing) else Thing(value, f"its {type(value).__name__} object")


def _add(names: list[str], name: str) -> None:
    if name not in names:
        names.append(name)


def _is_of_library(function: Any) -> bool:
    return isinstance(function, types.FunctionType) and is_library(function.__code__.co_filename)


def _is_library(module: types.ModuleType) -> bool:
    return is_library(getattr(module, "__file__", None) or os.__file__)


def _find(kind: type, name: str) -> Any:
    return next((vars(each)[name] for each in kind.__mro__ if name in vars(each)), NOTHING)


def _method(value: Any, name: str, thing: Thing) -> Thing:
    """A method, with its object; no property is run."""
    of_class = isinstance(value, type)
    kind = value.kind if isinstance(value, _Made) else value if of_class else type(value)
    found = _find(kind, name)
    if isinstance(found, classmethod):
        return Thing(types.MethodType(found.__func__, Thing(kind, kind.__name__)), name)
    if isinstance(found, types.FunctionType) and not of_class:
        return Thing(types.MethodType(found, thing), name)
    if isinstance(found, staticmethod):
        found = found.__func__
    elif hasattr(found, "__get__") and not of_class:
        return UNKNOWN
    return Thing(found, f"{kind.__name__}.{name}", thing.library)
