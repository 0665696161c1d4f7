# SPDX-License-Identifier: BSD-3-Clause
"""What a function carries.

That is everything outside of it that its code names, and that a copy in another process would have
a copy of.

::

    function --> closure, defaults, attributes, the object it is bound to, arguments of a partial
             --> globals that its code names
                 --> the user's functions and classes among them --> what those carry

Code of the standard library and of installed packages is not looked into: its caches are its own
affair.
"""

from __future__ import annotations

import functools
import gc
import os
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from teamster.spine.plan.safety.fingerprint import bound_to_process

_LIBRARY = os.path.dirname(os.__file__) + os.sep
_OURS = str(Path(__file__).parents[3]) + os.sep
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
# Functions and classes looked into; a program that large is judged by what was found so far
_MOST = 2_000
_CODE = (
    types.ModuleType,
    types.BuiltinFunctionType,
    types.CodeType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
)
HEAP_TYPE = 1 << 9  # made by a class statement, and not part of the interpreter
_ASSIGNMENTS = ("STORE_GLOBAL", "DELETE_GLOBAL", "STORE_DEREF", "DELETE_DEREF")


class Captures:
    """What a function carries.

    Attributes:
        values: by the name that the user would know it by.
        assigned: names outside of it that its code assigns.
        imported: those of the values that another process would take from a module that it imports.
        packages: libraries that its code names.
        caches: functions of it that remember their results, by name.
        hashes: whether its code calls `hash`, which is another for texts in each process.
        library: what its code names of libraries that is not theirs.
        codes: the code of the program that was looked into, each with its globals.
        foreign: functions and classes of libraries that it carries.

    Example:
        >>> def outer():
        ...     seen = []
        ...     return lambda item: seen.append(item)
        >>> Captures(outer()).values
        {'seen': []}
    """

    def __init__(self, function: Callable[..., Any], arguments: Sequence[Any] = ()) -> None:
        self.values: dict[str, Any] = {}
        self.assigned: list[str] = []
        self.imported: set[str] = set()
        self.caches: dict[str, Any] = {}
        self.hashes = False
        self.library: dict[str, Any] = {}
        self.packages: set[str] = set()
        self.codes: list[tuple[types.CodeType, dict[str, Any]]] = []
        self.foreign: dict[int, Any] = {}
        self._seen: set[int] = set()
        # Modules, by the code that names something of them
        self._asked: set[tuple[int, int]] = set()
        self._visit(
            function, getattr(function, "__qualname__", f"its {type(function).__name__} object")
        )
        for argument in arguments:  # their methods are called, or they are
            if isinstance(argument, (types.FunctionType, types.MethodType, functools.partial)):
                self._visit(argument, "its argument")
            else:
                self._visit_class(type(argument))

    def _visit(self, value: Any, name: str) -> None:
        """Look into code, note everything else."""
        if isinstance(value, functools.partial):
            self._visit(value.func, name)
            for position, argument in enumerate(value.args):
                self._visit(argument, f"argument {position} of the partial")
            for keyword, argument in value.keywords.items():
                self._visit(argument, keyword)
        elif isinstance(value, types.MethodType):
            self._visit(value.__func__, name)
            self._visit(value.__self__, f"its {type(value.__self__).__name__} object")
        elif isinstance(value, types.FunctionType):
            self._visit_function(value)
        elif isinstance(value, type):
            self._visit_class(value)
        elif isinstance(value, _CODE):
            return
        elif isinstance(value, functools._lru_cache_wrapper):
            # What it caches does not change what it returns
            self.caches[name] = value
            self._visit(value.__wrapped__, name)
            for each in _cached(value):
                self._note(each, f"{name}(...)")
        else:
            self._note(value, name)
            self._visit_class(type(value))

    def _note(self, value: Any, name: str) -> str:
        """Keep a value; another one that has the same name already gets a number."""
        unique, number = name, 1
        while unique in self.values and self.values[unique] is not value:
            number += 1
            unique = f"{name} ({number})"
        self.values[unique] = value
        return unique

    def _visit_function(self, function: types.FunctionType) -> None:
        if id(function) in self._seen or len(self._seen) > _MOST:
            return
        if is_library(function.__code__.co_filename):
            self.foreign[id(function)] = function
            return
        self._seen.add(id(function))
        for name, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=True
        ):
            try:
                self._visit(cell.cell_contents, name)
            except ValueError:  # not assigned yet
                continue
        for position, default in enumerate(
            [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        ):
            self._visit(default, f"default {position} of {function.__name__}")
        for attribute, value in function.__dict__.items():
            # What is wrapped is in the closure of the wrapper, too, if it is used
            if attribute != "__wrapped__":
                self._visit(value, f"{function.__name__}.{attribute}")
        for code in _codes(function.__code__):
            self._visit_code(code, function)

    def _visit_code(self, code: types.CodeType, function: types.FunctionType) -> None:
        names = function.__globals__
        self.codes.append((code, names))
        self.assigned += [
            name
            for name in _assigned(code, function.__code__.co_freevars)
            if name not in self.assigned
        ]
        self.hashes |= "hash" in code.co_names and code.co_name != "__hash__"
        for name in code.co_names:
            if name in names:
                value = names[name]
                if isinstance(value, types.ModuleType):
                    self._visit_module(value, code)
                else:
                    self._visit(value, name)
                    self._note_import(value, names.get("__name__"))
            for imported in (name, f"{names.get('__package__')}.{name}"):
                # Named by an import in the function itself
                if (module := sys.modules.get(imported)) is not None:
                    self._visit_module(module, code)

    def _visit_module(self, module: types.ModuleType, code: types.CodeType) -> None:
        """Of a module of the user's, what this code may ask it for."""
        if (id(module), id(code)) in self._asked:
            return
        self._asked.add((id(module), id(code)))
        if is_library(getattr(module, "__file__", None) or _LIBRARY):
            names = (
                name
                for name in code.co_names
                if _may_be_replaced(module, module.__dict__.get(name, ...))
            )
            self.packages.add(module.__name__.partition(".")[0])
            self.library |= {f"{module.__name__}.{name}": module.__dict__[name] for name in names}
            return
        for name in code.co_names:
            value = module.__dict__.get(name)
            if isinstance(value, types.ModuleType):
                self._visit_module(value, code)
            elif name in module.__dict__:
                self._visit(value, f"{module.__name__}.{name}")
                self._note_import(value, module.__name__)

    def _note_import(self, value: Any, module: str | None) -> None:
        if module != "__main__" and module in sys.modules:
            self.imported |= {name for name, each in self.values.items() if each is value}

    def _visit_class(self, kind: type) -> None:
        if id(kind) in self._seen:
            return
        if not is_users(kind):
            self.foreign[id(kind)] = kind
            return
        self._seen.add(id(kind))
        for base in kind.__bases__:
            self._visit_class(base)
        for name, value in list(vars(kind).items()):
            if isinstance(value, (staticmethod, classmethod)):
                value = value.__func__
            if isinstance(value, property):
                for accessor in (value.fget, value.fset):
                    if accessor is not None:
                        self._visit(accessor, name)
            elif isinstance(value, types.FunctionType) or not (
                name.startswith("__") or hasattr(value, "__get__")
            ):
                self._visit(value, f"{kind.__name__}.{name}")
                self._note_import(value, kind.__module__)


def _cached(wrapper: Any) -> list[Any]:
    """What belongs to this process, such as a connection, of the values kept for later calls."""
    # With a bound on their number the values are among these, without one they are in a table
    kept = gc.get_referents(wrapper)
    kept += [value for each in kept if type(each) is dict for value in each.values()]
    return [each for each in kept if bound_to_process(each)]


def is_library(filename: str) -> bool:
    """Whether code of that file is the interpreter's, an installed package's, or our own."""
    return filename.startswith((_LIBRARY, _OURS, "<frozen")) or any(
        part in filename for part in _INSTALLED
    )


def _may_be_replaced(module: types.ModuleType, value: Any) -> bool:
    """Whether a library's function or class comes from elsewhere."""
    if not isinstance(value, (types.FunctionType, type)):
        return False
    home = str(value.__module__).partition(".")[0].lstrip("_")
    return home != module.__name__.partition(".")[0].lstrip("_")


def is_users(kind: type) -> bool:
    """Whether a class is the user's own: then the code of its methods is worth a look."""
    if not kind.__flags__ & HEAP_TYPE:
        return False
    if kind.__module__ == "__main__":
        return True
    module = sys.modules.get(kind.__module__)
    return module is None or not is_library(getattr(module, "__file__", None) or _LIBRARY)


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


@functools.cache
def _assigning_opcodes() -> frozenset[int]:
    import opcode

    return frozenset(opcode.opmap[name] for name in _ASSIGNMENTS if name in opcode.opmap)


def _assigned(code: types.CodeType, free: tuple[str, ...]) -> list[str]:
    """Globals, and variables of an enclosing function (`free`), that `code` assigns."""
    if _assigning_opcodes().isdisjoint(code.co_code[::2]):
        return []
    import dis

    assignments = (each for each in dis.get_instructions(code) if each.opname in _ASSIGNMENTS)
    return [
        str(each.argval)
        for each in assignments
        if each.opname.endswith("_GLOBAL") or each.argval in free
    ]
