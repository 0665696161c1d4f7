# SPDX-License-Identifier: BSD-3-Clause
"""Which data of libraries a function reaches: what it names, and what the code that it calls names.

::

    code of the program --> a value of a library's module: counts
                        --> a function, a method or a class of a library --> its code --> ...

A new process has what the library has put there at its import; a program may have put more
(``urllib.parse.uses_netloc.append(...)``). Data that this code changes itself is not counted: that
is a cache, or is filled when it is first asked for.
"""

from __future__ import annotations

import dis
import functools
import sys
import types
from collections import deque
from time import perf_counter
from typing import Any

from teamster.spine.plan.safety.captures import HEAP_TYPE, Captures, is_library, is_users
from teamster.spine.plan.safety.known_effects import CHANGING
from teamster.spine.plan.safety.library_data import OWN_AFFAIRS, States, states

_MOST = 400  # code objects: what is called directly comes first
_STORES_GLOBAL = frozenset(dis.opmap[name] for name in ("STORE_GLOBAL", "DELETE_GLOBAL"))
_STORES = _STORES_GLOBAL | {
    dis.opmap[name] for name in ("STORE_SUBSCR", "DELETE_SUBSCR", "STORE_ATTR", "DELETE_ATTR")
}
_LOAD_GLOBAL = dis.opmap["LOAD_GLOBAL"]  # its lowest bit does not belong to the name
_LOADS = (_LOAD_GLOBAL, dis.opmap["LOAD_NAME"])
# By how many bits the name's number is shifted; Python 3.12 made one instruction of the two
_ATTRIBUTES = (
    {dis.opmap["LOAD_ATTR"]: 1}
    if sys.version_info >= (3, 12)
    else {dis.opmap["LOAD_ATTR"]: 0, dis.opmap["LOAD_METHOD"]: 0}
)
_CHANGING_NAMES = frozenset(CHANGING)


def library_states(captures: Captures, seconds: float) -> States:
    """Checksums of the data of libraries that a function reaches, as far as the time allows.

    Args:
        captures: what the function carries.
        seconds: for reading code; what it calls itself comes first.

    Example:
        >>> import reprlib
        >>> "reprlib:repr.__self__" in library_states(Captures(lambda item: reprlib.repr(item)), 1)
        True
    """
    deadline = perf_counter() + seconds
    reached = _Reached(deadline)
    for code, names in captures.codes:
        reached.look(code, names, directly=True)
    for value in captures.foreign.values():
        reached.meet("", "", value, (), directly=False)
    return states(reached.labels(), deadline + seconds)


class _Reached:
    """Goes through code, what is called first; methods as far as code asks for their names."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._found: dict[str, str] = {}  # labels, and the name of each
        self._written: set[str] = set()
        self._seen: set[Any] = set()
        self._asked: set[str] = set()
        self._methods: dict[str, list[Any]] = {}  # that nothing has asked for yet
        self._next: deque[tuple[types.CodeType, dict[str, Any]]] = deque()

    def labels(self) -> list[str]:
        """All that was found, after a look at the code that is left."""
        looked = 0
        while self._next and looked < _MOST and perf_counter() < self._deadline:
            self.look(*self._next.popleft(), directly=False)
            looked += 1
        return [label for label, name in self._found.items() if name not in self._written]

    def look(self, code: types.CodeType, names: dict[str, Any], *, directly: bool) -> None:
        """Meet all that a code object names; `directly` when it is the program's."""
        module = str(names.get("__name__"))
        for name in code.co_names:
            value = names[name] if name in names else sys.modules.get(name)
            if value is not None:
                self.meet(module, name, value, code.co_names, directly=directly)
            self._ask(name)
        if directly:
            return
        self._written |= _written(code)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._next.append((constant, names))

    def meet(
        self, module: str, name: str, value: Any, asked: tuple[str, ...], *, directly: bool
    ) -> None:
        """Something that code names; of a module it may ask for what is among `asked`."""
        kind = type(value)
        if issubclass(kind, types.ModuleType):
            self._module(value, asked, directly=directly)
        elif kind is types.FunctionType:
            self._function(value)
        elif kind is types.MethodType:
            self._function(value.__func__)
            self._value(module, f"{name}.__self__", value.__self__, directly=directly)
        elif kind is functools._lru_cache_wrapper:
            self._function(value.__wrapped__)
        elif issubclass(kind, type):
            self._class(value)
        else:
            self._value(module, name, value, directly=directly)

    def _ask(self, name: str) -> None:
        if name not in self._asked:
            self._asked.add(name)
            for method in self._methods.pop(name, ()):
                self._function(method)

    def _module(self, module: types.ModuleType, asked: tuple[str, ...], *, directly: bool) -> None:
        if (id(module), asked) in self._seen or not _is_library_module(module.__name__):
            return
        self._seen.add((id(module), asked))
        names = vars(module)
        for name in asked:
            if name in names:
                self.meet(module.__name__, name, names[name], asked, directly=directly)

    def _function(self, function: Any) -> None:
        code = getattr(function, "__code__", None)
        if not isinstance(code, types.CodeType) or code in self._seen:
            return
        if is_library(code.co_filename) and not _is_own_affair(function.__module__):
            self._seen.add(code)
            self._next.append((code, function.__globals__))

    def _class(self, kind: type) -> None:
        """Its data counts; its methods may be called, and classes that it names be made."""
        if kind in self._seen or not kind.__flags__ & HEAP_TYPE or is_users(kind):
            return
        self._seen.add(kind)
        own = _is_own_affair(kind.__module__)
        if "<" not in kind.__qualname__ and (not own or "_abc_impl" in vars(kind)):
            self._found[f"{kind.__module__}:{kind.__qualname__}"] = kind.__qualname__
        for each in (*kind.__bases__, type(kind)):
            self._class(each)
        for name, value in () if own else list(vars(kind).items()):
            if isinstance(value, type):
                self._class(value)
            elif name.startswith("__") or name in self._asked:
                self._function(_method(value))
            elif hasattr(value, "__get__"):
                self._methods.setdefault(name, []).append(_method(value))

    def _value(self, module: str, name: str, value: Any, *, directly: bool) -> None:
        self._class(type(value))
        if (
            _is_library_module(module)
            and (directly or not _is_own_affair(module))
            and not (name.startswith("__") or "cache" in name.lower())
        ):
            self._found[f"{module}:{name}"] = name.partition(".")[0]


def _method(value: Any) -> Any:
    """The function of a method, of whatever kind."""
    return getattr(value, "fget", None) or getattr(value, "__func__", value)


@functools.lru_cache(maxsize=1024)
def _written(code: types.CodeType) -> frozenset[str]:
    """Which globals this code changes; those of one line count, whichever of them it is."""
    instructions, names = code.co_code, code.co_names
    if _STORES.isdisjoint(instructions[::2]) and _CHANGING_NAMES.isdisjoint(names):
        return frozenset()
    lines = {start for start, _, _ in code.co_lines()}
    loaded: set[str] = set()
    written: set[str] = set()
    more = 0
    for offset in range(0, len(instructions), 2):
        operation, number = instructions[offset], instructions[offset + 1] | more
        more = number << 8 if operation == dis.EXTENDED_ARG else 0
        if offset in lines:
            loaded = set()
        if operation in _LOADS:
            loaded.add(names[number >> 1 if operation == _LOAD_GLOBAL else number])
        elif operation in _STORES:
            written |= {*loaded, names[number]} if operation in _STORES_GLOBAL else loaded
        elif (
            operation in _ATTRIBUTES and names[number >> _ATTRIBUTES[operation]] in _CHANGING_NAMES
        ):
            written |= loaded
    return frozenset(written)


def _is_own_affair(module: str | None) -> bool:
    return str(module).partition(".")[0] in OWN_AFFAIRS


@functools.lru_cache(maxsize=4096)
def _is_library_module(name: str) -> bool:
    module = sys.modules.get(name)
    if module is None or name in ("__main__", "__mp_main__"):
        return False
    file = getattr(module, "__file__", None)
    return name.partition(".")[0] in sys.stdlib_module_names if file is None else is_library(file)
