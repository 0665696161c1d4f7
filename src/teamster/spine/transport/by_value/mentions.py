# SPDX-License-Identifier: BSD-3-Clause
"""What definitions use without naming it.

That is names in annotations that are texts, and globals that are looked up by a text.

::

    from __future__ import annotations   class Order: item: Item  --> Item
    globals()["do_" + kind], eval(text)  pickle.load(file)        --> whatever travels of the module
    sys.modules["__main__"], Base.__subclasses__()
    gettext.install("app")               _("text")                --> `_`, which the program has
                                                                      among the built-ins
"""

from __future__ import annotations

import builtins
import pickle
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from teamster.spine.transport.by_value import modules, originals
from teamster.spine.transport.by_value.locks import is_own_lock

_FUNCTIONS = {"globals", "eval", "exec"}
_UNPICKLING = {"load", "loads", "Unpickler"}
_PICKLERS = {"pickle", "joblib", "dill", "cloudpickle", "shelve", "torch"}
_LARGE = 1 << 20  # bytes of a pickle, that goes along only in case
_MANY = 10_000  # items: a container that large is data, not a table of functions
_BUILTINS = vars(builtins)
# Packages of which objects load wherever they are pickled
_KNOWN = ("builtins", "datetime", "decimal", "fractions", "numpy", "pathlib", "re", "torch", "enum")
_PICKLING = ("__new__", "__reduce__", "__reduce_ex__")
_SURE_TO_LOAD = (bool, int, float, complex, str, bytes, type(None), FunctionType, type)
_IDENTIFIER = re.compile(r"[^\W\d]\w*")

Travels = Callable[[Any], bytes]
"""The pickle of a value; raises where there is none."""

ABSENT = object()
"""What has gone along in case, and does not load where it came."""


IMPORTED = "import "
"""Before the name of a module that must be there, and is no global."""

_UNLOADABLE = object()  # it does not even load here


class _InCase:
    """Stands for a value that a task may ask for: only then it matters whether it loads."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __reduce__(self) -> Any:
        return _load_in_case, (self._data,)


def _load_in_case(data: bytes) -> Any:
    try:
        return pickle.loads(data)
    except Exception:
        return ABSENT


_everything: dict[int, tuple[int, dict[str, Any]]] = {}


def of_function(function: FunctionType, travels: Travels) -> dict[str, Any]:
    """Globals that a function of a module by value may look for, beside those its code names."""
    values, names = function.__globals__, _names_in(function.__code__)
    found = {
        name: value
        for name, value in _in_texts(function.__annotations__, values).items()
        if type(value) is not ModuleType
    }
    added = {
        name: _BUILTINS[name]
        for name in names
        if name not in values and _is_added(_BUILTINS.get(name))
    }
    found |= {name: value for name, value in added.items() if _goes_along(value, travels)}
    # By an import in the function itself
    made_up = names & modules.by_value - {"__main__", "__mp_main__"}
    found |= {f"{IMPORTED}{name}": sys.modules[name] for name in made_up if name in sys.modules}
    return {**_all(values, travels), **found} if _look_up(names, values) else found


def of_class(kind: type) -> dict[str, Any]:
    """Globals that its annotations name."""
    if (
        kind.__module__ not in modules.by_value
        or (module := sys.modules.get(kind.__module__)) is None
    ):
        return {}
    return _in_texts(vars(kind).get("__annotations__", {}), vars(module))


def _in_texts(annotations: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    texts: Iterable[str] = (each for each in annotations.values() if isinstance(each, str))
    return {
        name: values[name] for text in texts for name in _IDENTIFIER.findall(text) if name in values
    }


def _names_in(code: CodeType) -> set[str]:
    """What code names, and the texts in it that are ``__main__``."""
    names = {*code.co_names, *(("__main__",) if "__main__" in code.co_consts else ())}
    return names.union(*(_names_in(each) for each in code.co_consts if isinstance(each, CodeType)))


def _look_up(names: set[str], values: dict[str, Any]) -> bool:
    """Whether code with these names looks for globals by a text."""
    return (
        any(name not in values for name in names & _FUNCTIONS)
        or not names.isdisjoint(("__main__", "__subclasses__", "get_type_hints"))
        or {"modules", "__name__"} <= names
        or not (names.isdisjoint(_UNPICKLING) or names.isdisjoint(_PICKLERS))
    )


def _is_added(value: Any) -> bool:
    """Whether a built-in is the program's: ``_`` of gettext, ``profile``, another `print`."""
    kind = type(value)
    return kind in (FunctionType, MethodType) or (kind is type and value.__module__ != "builtins")


def _all(values: dict[str, Any], travels: Travels) -> dict[str, Any]:
    """What there is in a module that travels, and is not large: a task may ask for any of it."""
    call, known = _everything.get(id(values), (-1, {}))
    if call == originals.call:
        return known
    found: dict[str, Any] = {}
    _everything[id(values)] = originals.call, found  # what is tried may look up something itself
    everything = {name: each for name, each in list(values.items()) if not name.startswith("__")}
    sent = {name: _in_case(value, travels) for name, value in everything.items()}
    unloadable = {name for name, each in sent.items() if each is _UNLOADABLE}
    while more := {
        name for name in sent.keys() - unloadable if _uses(everything[name], unloadable)
    }:
        unloadable |= more
    found.update(
        {name: each for name, each in sent.items() if each is not ABSENT and name not in unloadable}
    )
    return found


def _uses(value: Any, unloadable: set[str]) -> bool:
    """Whether a function names one of these, so that it would not load either."""
    return type(value) is FunctionType and not unloadable.isdisjoint(_names_in(value.__code__))


def _in_case(value: Any, travels: Travels) -> Any:
    """How a value goes along: in a wrapper where a class has a pickling of its own."""
    if is_own_lock(value):
        return value
    if isinstance(value, ModuleType) or _loads_surely(value):
        return value if _goes_along(value, travels) else ABSENT
    try:
        data = b"" if _is_large(value) else travels(value)
        if not 0 < len(data) <= _LARGE:
            return ABSENT
    except Exception:
        return ABSENT
    try:
        pickle.loads(data)
    except Exception:
        return _UNLOADABLE
    return _InCase(data)


def _loads_surely(value: Any) -> bool:
    """Whether nothing in it has code that runs when it is unpickled.

    What is in the wrapper is a copy of its own, so what surely loads goes as it is.
    """
    pending, seen = [value], set[int]()
    while pending:
        each = pending.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        inside = _inside(each)
        if inside is None or len(seen) > _MANY:
            return False
        pending += inside
    return True


def _inside(value: Any) -> Iterable[Any] | None:
    """What a value holds; None where its class has a pickling of its own."""
    kind = type(value)
    if kind in _SURE_TO_LOAD or issubclass(kind, type):
        return ()
    if kind in (list, tuple, set, frozenset, deque):
        return tuple(value)
    if issubclass(kind, dict) and kind.__module__ in ("builtins", "collections"):
        return [*value.keys(), *value.values()]
    if kind.__module__.partition(".")[0] in _KNOWN:
        return ()
    usual = all(getattr(kind, name) is getattr(object, name) for name in _PICKLING)
    if not usual or hasattr(kind, "__setstate__"):
        return None
    return list(getattr(value, "__dict__", {}).values())


def _is_large(value: Any) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, type) and len(value) > _MANY


def _goes_along(value: Any, travels: Travels) -> bool:
    if isinstance(value, ModuleType):
        return sys.modules.get(value.__name__) is value and value.__name__ not in modules.by_value
    try:
        return not _is_large(value) and len(travels(value)) <= _LARGE
    except Exception:
        return False
