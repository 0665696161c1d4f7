# SPDX-License-Identifier: BSD-3-Clause
"""What tables, constants and classes of libraries hold, so that two processes can compare it.

A label names a place: ``urllib.parse:uses_netloc`` a value of a module,
``http.client:HTTPConnection`` the data of a class. What counts is what a program puts there: plain
data, and code of the program's. Which code of libraries a table holds depends on what was imported,
and in which order.
"""

from __future__ import annotations

import importlib
import sys
import types
import zlib
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from enum import Enum
from math import inf
from time import perf_counter
from typing import Any

from teamster.spine.plan.safety.captures import is_library, is_users

States = dict[str, int | None]
"""Checksums by label; None where a value is too large to look at."""

_MOST = 5_000  # values in one; html.entities.html5, a large table, has 2,231
_DEEP = 4  # containers in containers: tables of tables have two
_MOST_MODULES = 300  # of a package, to import where it has a difference: SciPy has as many
_LONG = 200  # characters of a text from which on its checksum stands for it
_PLAIN = (bool, int, float, complex, str, bytes, types.NoneType)
_SEQUENCES = (list, tuple, deque)
_TABLES = (dict, OrderedDict, defaultdict, Counter, types.MappingProxyType)
_MISSING = object()
_NOT_DATA = ("_abc_impl", "_is_protocol", "_is_runtime_protocol")
# Of these only constants that the function itself names count: the rest is each process's own
_OWN_AFFAIRS = """
    sys os posix io _io site builtins gc atexit time platform sysconfig locale gettext codecs
    threading _thread signal multiprocessing concurrent asyncio subprocess socket _socket
    selectors ssl logging warnings traceback linecache inspect dis opcode tokenize ast typing
    types enum abc importlib zipimport runpy pkgutil weakref _weakrefset functools contextlib
    contextvars operator copyreg pickle _pickle cloudpickle re _collections_abc random secrets
    uuid tempfile numpy torch triton teamster pytest _pytest pluggy
"""
OWN_AFFAIRS = frozenset(_OWN_AFFAIRS.split())


class _TooLarge(Exception):
    """More than there is a point in comparing."""


def states(labels: Iterable[str], deadline: float = inf) -> States:
    """The checksum of what each label names in this process.

    Args:
        labels: places.
        deadline: moment of `time.perf_counter` after which none is looked at any more.

    Example:
        >>> import keyword
        >>> before = states(["keyword:kwlist"])
        >>> keyword.kwlist.append("match")
        >>> states(["keyword:kwlist"]) == before
        False
        >>> keyword.kwlist.remove("match")
    """
    return {label: _state(label) for label in labels if perf_counter() < deadline}


def changed(here: States, modules: Collection[str]) -> str:
    """In a new process: the first label that means another thing `here`, where it was looked up.

    Args:
        here: as found by the program.
        modules: those of libraries that the program has loaded. What their import puts into a
            table is no difference, so those of a package that has one are loaded, too.

    Returns:
        The name, or an empty text.
    """
    different = _differing(here)
    own = {label.partition(":")[0] for label in different}
    packages = {module.partition(".")[0] for module in own}
    beside = [module for module in modules if module.partition(".")[0] in packages]
    for module in (*own, *beside) if different else ():
        if module not in sys.modules:
            with suppress(Exception):
                importlib.import_module(module)
    return next(iter(_differing({each: here[each] for each in different})), "").replace(":", ".")


def loaded_beside(labels: Collection[str]) -> tuple[str, ...]:
    """Modules loaded here of the packages that these labels are of.

    Example:
        >>> "json.decoder" in loaded_beside(["json:JSONEncoder"])
        True
    """
    packages = {each.partition(":")[0].partition(".")[0] for each in labels}
    found = Counter[str]()
    for name in (modules := list(sys.modules)):
        found[name.partition(".")[0]] += 1
    return tuple(
        name
        for name in modules
        if (package := name.partition(".")[0]) in packages and found[package] <= _MOST_MODULES
    )


def _differing(here: States) -> list[str]:
    return [
        label
        for label, state in here.items()
        if state is not None and (other := _state(label)) is not None and other != state
    ]


def _state(label: str) -> int | None:
    module, _, path = label.partition(":")
    value: Any = sys.modules.get(module, _MISSING)
    for part in path.split("."):
        value = getattr(value, part, _MISSING)
    own = module.partition(".")[0] in OWN_AFFAIRS
    if own and value is not _MISSING and type(value) not in _PLAIN:
        return 0
    try:
        return zlib.crc32(_Description().of(value, _DEEP).encode("utf-8", "replace"))
    except _TooLarge:
        return None


class _Description:
    """A text for a value that is the same in every process where it means the same."""

    def __init__(self) -> None:
        self._left = _MOST

    def of(self, value: Any, deep: int) -> str:
        self._left -= 1
        if self._left < 0:
            raise _TooLarge
        kind = type(value)
        if kind in _PLAIN:
            return _constant(value)
        if deep == _DEEP and issubclass(kind, type):
            return self._class(value, deep - 1)
        if not deep or (own := _code_name(value)) is not None:
            return kind.__qualname__ if not deep else own or kind.__qualname__
        if kind in _SEQUENCES:
            # Their order is that of the imports
            return f"[{','.join(sorted(self.of(each, deep - 1) for each in value))}]"
        if kind in (set, frozenset):
            return f"[{','.join(sorted(self._entries(((each, None) for each in value), deep)))}]"
        if kind in _TABLES:
            return f"[{','.join(sorted(self._entries(list(value.items()), deep)))}]"
        return self._object(value, deep)

    def _entries(self, entries: Iterable[tuple[Any, Any]], deep: int) -> Iterable[str]:
        """Those of a table that an import does not make."""
        for key, value in entries:
            if not _is_library_code(key) and not _is_library_code(value):
                yield f"{self.of(key, deep - 1)}:{self.of(value, deep - 1)}"

    def _class(self, kind: type, deep: int) -> str:
        """Its data, and those classes of the program's that are registered with it.

        Of private names only tables: numbers and single objects are counters, and made when needed.
        """
        data = (
            (name, value)
            for name, value in list(vars(kind).items())
            if not name.startswith("__") and name not in _NOT_DATA and not hasattr(value, "__get__")
            if not name.startswith("_") or isinstance(value, (*_SEQUENCES, set, *_TABLES))
        )
        return f"{sorted(self._entries(data, deep))}{_registered(kind)}"

    def _object(self, value: Any, deep: int) -> str:
        kind = type(value)
        if isinstance(value, Enum):
            return str(value)
        fields = getattr(value, "__dict__", None) if not isinstance(value, type) else None
        own = kind.__module__.partition(".")[0] in OWN_AFFAIRS
        if own or not isinstance(fields, Mapping) or is_users(kind):
            return kind.__qualname__
        return f"{kind.__qualname__}{sorted(self._entries(list(fields.items()), deep))}"


def _constant(value: Any) -> str:
    text = repr(value)
    return text if len(text) < _LONG else f"{len(text)} {zlib.crc32(text.encode())}"


def _code_name(value: Any) -> str | None:
    """The name of a function, a class or a module; None for what is none."""
    if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
        return f"{value.__module__}.{value.__qualname__}"
    return value.__name__ if isinstance(value, types.ModuleType) else None


def _is_library_code(value: Any) -> bool:
    """Also a tuple of such: a function and what it may take."""
    if type(value) in (tuple, list):
        return any(map(_is_library_code, value))
    if isinstance(value, types.FunctionType):
        return is_library(value.__code__.co_filename)
    if isinstance(value, type):
        return not is_users(value)
    return isinstance(value, (types.ModuleType, types.BuiltinFunctionType))


def _registered(kind: type) -> list[str]:
    """Virtual subclasses of an abstract class, as far as they are the program's."""
    dump: Callable[[type], Any] | None = getattr(sys.modules.get("_abc"), "_get_dump", None)
    if dump is None or "_abc_impl" not in vars(kind):
        return []
    registered = [reference() for reference in dump(kind)[0]]
    return sorted(
        f"{each.__module__}.{each.__qualname__}" for each in registered if each and is_users(each)
    )
