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
import re
import sys
from collections.abc import Callable, Iterable
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from teamster.spine.transport.by_value import modules, originals

_FUNCTIONS = {"globals", "eval", "exec"}
_UNPICKLING = {"load", "loads", "Unpickler"}
_PICKLERS = {"pickle", "joblib", "dill", "cloudpickle", "shelve", "torch"}
_LARGE = 1 << 20  # bytes of a pickle, that goes along only in case
_MANY = 10_000  # items: a container that large is data, not a table of functions
_BUILTINS = vars(builtins)
_IDENTIFIER = re.compile(r"[^\W\d]\w*")

Travels = Callable[[Any], int]
"""The size of a pickle; raises where there is none."""

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
    chosen = {
        name: value
        for name, value in list(values.items())
        if not name.startswith("__") and _goes_along(value, travels)
    }
    found.update(chosen)
    return found


def _goes_along(value: Any, travels: Travels) -> bool:
    if isinstance(value, ModuleType):
        return sys.modules.get(value.__name__) is value and value.__name__ not in modules.by_value
    try:
        return (
            not (hasattr(value, "__len__") and not isinstance(value, type) and len(value) > _MANY)
            and travels(value) <= _LARGE
        )
    except Exception:
        return False
