# SPDX-License-Identifier: BSD-3-Clause
"""How objects of the standard library travel that do not pickle, and can be made again.

The libraries are looked up by name: none is imported for this.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any


def recipe_of(kind: type) -> Callable[[Any], Any] | None:
    """How to reduce objects of exactly this class; None where nothing special is known.

    Example:
        >>> import struct
        >>> recipe_of(struct.Struct)(struct.Struct("<i"))[1]
        ('<i',)
    """
    return _RECIPES.get((kind.__module__, kind.__name__))


def _make_cached_property(kind: type, function: Any, name: str | None) -> Any:
    made = kind(function)
    made.attrname = name
    return made


def _reduce_cached_property(value: Any) -> Any:
    return _make_cached_property, (type(value), value.func, value.attrname)


def _reduce_weak_dictionary(value: Any) -> Any:
    return type(value), (dict(value),)


def _reduce_json_scanner(value: Any) -> Any:
    return _make_json_scanner, ({name: getattr(value, name) for name in _OF_JSON_SCANNER},)


def _make_json_scanner(said: dict[str, Any]) -> Any:
    __import__("json.scanner")
    return sys.modules["json.scanner"].make_scanner(types.SimpleNamespace(**said, memo={}))


def _reduce_lexer(value: Any) -> Any:
    return type(value), (value.lexicon, value.scanner.flags)


def _reduce_c_library(value: Any) -> Any:
    """With what the program has said of its functions."""
    functions = {name: each for name, each in vars(value).items() if hasattr(each, "restype")}
    said = {
        name: (each.argtypes, each.restype, getattr(each, "errcheck", None))
        for name, each in functions.items()
    }
    return _load_c_library, (type(value), value._name, said)


def _load_c_library(kind: Any, name: str | None, said: dict[str, Any]) -> Any:
    library = kind(name)
    for function, (arguments, result, check) in said.items():
        found = getattr(library, function)
        found.argtypes, found.restype = arguments, result
        if check is not None:
            found.errcheck = check
    return library


_OF_JSON_SCANNER = (
    *("strict", "object_hook", "object_pairs_hook"),
    *("parse_float", "parse_int", "parse_constant"),
)
_RECIPES: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("functools", "cached_property"): _reduce_cached_property,  # its lock does not pickle (3.11)
    ("weakref", "WeakKeyDictionary"): _reduce_weak_dictionary,
    ("weakref", "WeakValueDictionary"): _reduce_weak_dictionary,
    ("_struct", "Struct"): lambda value: (type(value), (value.format,)),
    ("_json", "Scanner"): _reduce_json_scanner,  # of each JSONDecoder
    ("random", "SystemRandom"): lambda value: (type(value), ()),
    ("re", "Scanner"): _reduce_lexer,
    ("ctypes", "CDLL"): _reduce_c_library,
    ("ctypes", "PyDLL"): _reduce_c_library,
}


# --- constants that are told by their identity ----------------------------------------------------


class _Constant:
    """Stands for a text that code compares with ``is``."""

    def __reduce__(self) -> Any:
        return getattr, (sys.modules["argparse"], "SUPPRESS")


def with_constants(value: Any, reduced: Any) -> Any:
    """What `value` is reduced to, where the constants of argparse in it stay what they are."""
    argparse = sys.modules.get("argparse")
    if argparse is None or not isinstance(value, (argparse._ActionsContainer, argparse.Action)):
        return reduced
    if len(reduced) < 3 or type(reduced[2]) is not dict:
        return reduced
    make, arguments, state, *rest = reduced
    told = {
        name: _Constant() if each is argparse.SUPPRESS else each for name, each in state.items()
    }
    return make, arguments, told, *rest
