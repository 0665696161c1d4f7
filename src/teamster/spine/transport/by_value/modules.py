# SPDX-License-Identifier: BSD-3-Clause
"""Which modules of the program another process can import, and what becomes of the others.

::

    __main__                     no worker imports it: what it defines travels by value, into a
                                 module of that name there
    a file that no finder finds  (a plugin loaded by its path, a test under another import mode, a
                                 relative entry of ``sys.path`` after a chdir): workers are told
                                 the file, and load it when they import it
    no file                      (``types.ModuleType`` and ``exec``): by value, like ``__main__``

The program is surveyed when a function is pickled, and only what it has loaded since the last time
is looked at.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec
from types import BuiltinFunctionType, FunctionType, MethodDescriptorType, ModuleType
from typing import Any

Place = tuple[str | None, list[str] | None]
"""The file of a module, None for a package without one; and where a package's submodules are."""

by_value = {"__main__"}
"""Names of modules with definitions that travel by value."""

places: dict[str, Place] = {}
"""Modules that workers load from where this program has found them."""

_OF_C = (BuiltinFunctionType, MethodDescriptorType)
_surveyed: dict[str, int] = {}
_last: tuple[int, str] = (0, "")  # number of modules and folder when they were looked at last
_marks: tuple[bytes, ...] = ()


def survey() -> None:
    """Look at the modules that were loaded since the last time."""
    global _last, _marks
    now = len(sys.modules), next(reversed(sys.modules))
    if now == _last:
        return
    _last = now
    folders: dict[str, str] = {}
    for name, module in sorted(sys.modules.items()):  # packages before what is in them
        if _surveyed.get(name) == id(module):
            continue
        _surveyed[name] = id(module)
        by_value.discard(name)
        places.pop(name, None)
        if name == "__mp_main__":
            # The program's, in a process that multiprocessing has spawned or is just starting
            by_value.add(name)
        elif module is sys.modules.get("__main__"):
            if name in ("__main__", module.__name__):
                by_value.add(name)
        elif not _is_below(name, module, folders) and not _is_importable(name, module):
            _place(name, module)
    _marks = tuple(name.encode() for name in by_value if name != "__main__")


def _is_below(name: str, module: Any, folders: dict[str, str]) -> bool:
    """Whether a short look is enough to know that workers can import it.

    It is a module of the standard library, or lies in the folder of a package that is importable.
    """
    top, _, rest = name.partition(".")
    if top in sys.stdlib_module_names or not isinstance(module, ModuleType):
        return True
    file = module.__dict__.get("__file__")
    if not rest:
        if (
            module.__dict__.get("__path__")
            and isinstance(file, str)
            and _is_importable(name, module)
        ):
            folders[name] = os.path.dirname(file) + os.sep
        return name in folders
    if top not in folders and top in sys.modules and top not in by_value and top not in places:
        folders[top] = os.path.dirname(getattr(sys.modules[top], "__file__", None) or "?") + os.sep
    return top in folders and isinstance(file, str) and file.startswith(folders[top])


def named_by_value(data: bytes) -> bool:
    """Whether a pickle names a module with definitions that travel by value."""
    return b"__main__" in data or (bool(_marks) and any(mark in data for mark in _marks))


def places_named(data: bytes) -> dict[str, Place]:
    """What a worker must be told to load this pickle."""
    named = [name for name in places if name.encode() in data]
    return {name: places[name] for each in named for name in _with_parents(each) if name in places}


def _with_parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[: length + 1]) for length in range(len(parts))]


def _place(name: str, module: ModuleType) -> None:
    spec = module.__dict__.get("__spec__")
    file = getattr(spec, "origin", None) or module.__dict__.get("__file__")
    locations = getattr(spec, "submodule_search_locations", None)
    if not isinstance(file, str) or not os.path.isfile(file):
        file = None
    parents = _with_parents(name)[:-1]
    if (file is None and locations is None) or any(parent not in sys.modules for parent in parents):
        by_value.add(name)
        return
    places[name] = file and os.path.abspath(file), None if locations is None else list(locations)
    for parent in parents:
        if parent in by_value:  # made up by the code that loaded the file
            by_value.discard(parent)
            places[parent] = None, []


def _is_importable(name: str, module: ModuleType) -> bool:
    spec, file = module.__dict__.get("__spec__"), module.__dict__.get("__file__")
    parent_name = name.rpartition(".")[0]
    parent = sys.modules.get(parent_name) if parent_name else None
    if parent_name and (parent is None or parent_name in by_value):
        return False
    if parent is not None and (spec is None or file == getattr(parent, "__file__", None)):
        # It comes into being with its parent
        return parent_name not in places and not str(file).endswith(".py")
    if spec is None:
        return not _is_made_up(module)
    if sys.modules.get(spec.name, module) is module and spec.name != name:
        # Another name of it: things have the first one
        return True
    if spec.origin in ("built-in", "frozen"):
        return True
    path = sys.path if parent is None else getattr(parent, "__path__", None)
    if spec.has_location and spec.origin is not None and path is not None:
        folder = os.path.dirname(spec.origin)
        if (
            os.path.dirname(folder) if spec.submodule_search_locations is not None else folder
        ) in path:
            return True
    return _is_found(name, None if parent is None else path, spec)


def _is_made_up(module: ModuleType) -> bool:
    """Whether the program has made it; others are made by extensions."""
    values = list(vars(module).values())
    if "__builtins__" in vars(module) or any(isinstance(value, FunctionType) for value in values):
        return True
    of_program = type(module) is not ModuleType and type(module).__module__ in by_value
    return of_program or not any(isinstance(value, (type, *_OF_C)) for value in values)


def _is_found(name: str, path: Any, spec: ModuleSpec) -> bool:
    """Whether an import would find the same file."""
    for finder in list(sys.meta_path):
        try:
            found = None if _is_of_program(finder) else finder.find_spec(name, path)
        except Exception:
            continue
        if found is not None:
            return _is_same(found, spec)
    return False


def _is_of_program(finder: Any) -> bool:
    """Whether workers have no such finder."""
    kind = finder if isinstance(finder, type) else type(finder)
    return kind is PlaceFinder or kind.__module__ in by_value


def _is_same(found: ModuleSpec, spec: ModuleSpec) -> bool:
    if isinstance(found.origin, str) and isinstance(spec.origin, str):
        return os.path.realpath(found.origin) == os.path.realpath(spec.origin)
    elsewhere = set(spec.submodule_search_locations or ()) - set(
        found.submodule_search_locations or ()
    )
    # Packages without a file are known by their folders
    return found.origin == spec.origin and not elsewhere


# --- in a worker ----------------------------------------------------------------------------------


class PlaceFinder:
    """Finds modules where the program has found them."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The spec of a module that the program has told of."""
        if name not in places:
            return None
        from importlib.util import spec_from_file_location

        file, locations = places[name]
        if file is not None:
            return spec_from_file_location(name, file, submodule_search_locations=locations)
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = locations
        return spec


def adopt(told: dict[str, Place]) -> None:
    """Find these modules from now on."""
    places.update(told)
    if not any(isinstance(finder, PlaceFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, PlaceFinder())


def namespace(name: str, kind: type[ModuleType] = ModuleType, **about: Any) -> dict[str, Any]:
    """The namespace of a module with definitions that travel by value.

    It is made where this process has none of that name, as one of that `kind`.
    """
    module = sys.modules.get(name)
    if module is None:
        module = sys.modules[name] = ModuleType.__new__(kind)
        ModuleType.__init__(module, name)
        module.__dict__.update(about)
        by_value.add(name)
    return module.__dict__
