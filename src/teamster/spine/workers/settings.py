# SPDX-License-Identifier: BSD-3-Clause
"""What a program can set in the interpreter and the standard library; package_settings.py goes on.

One table, a row for each. A row reads what is set, and sets it where an item runs; values are
small, and compare by value. `usual` is what there is where nothing was set, so that only what was
set travels, and no worker imports a library for nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from teamster.machine.folder import working_folder
from teamster.spine.workers.logging_settings import log_settings, set_log_settings

Values = dict[Any, Any]
"""By name; `...` stands for a value that is not set."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One row.

    Attributes:
        title: for people.
        module: by name; where it is not loaded, nothing was set.
        read: of the module, what there is.
        write: of the module, a name and its value, or `...` to take it back.
        usual: what there is in a new process; a name that is not in there is not there.
        of_thread: whether each thread, or context, has its own.
    """

    title: str
    module: str
    read: Callable[[Any], Values]
    write: Callable[[Any, str, Any], object]
    usual: Values = field(default_factory=dict)
    of_thread: bool = False


def pairs(title: str, module: str, *rows: tuple[str, str, Any], of_thread: bool = False) -> Setting:
    """Rows of a function that tells, one that sets, and the usual value."""
    setters = {getter: setter for getter, setter, _ in rows}

    def read(library: Any) -> Values:
        return {getter: getattr(library, getter)() for getter in setters}

    def write(library: Any, name: str, value: Any) -> None:
        getattr(library, setters[name])(value)

    return Setting(
        title, module, read, write, {getter: usual for getter, _, usual in rows}, of_thread
    )


def attributes(title: str, module: str, **usual: Any) -> Setting:
    """Attributes of a module that its documentation says to set."""
    return Setting(
        title,
        module,
        lambda library: {name: getattr(library, name) for name in usual},
        setattr,
        usual,
    )


# --- the interpreter and the standard library -----------------------------------------------------

_CATEGORIES = ("LC_CTYPE", "LC_NUMERIC", "LC_TIME", "LC_COLLATE", "LC_MONETARY", "LC_MESSAGES")
_DIALECTS = ("excel", "excel-tab", "unix")
_DIALECT = (
    "delimiter",
    "doublequote",
    "escapechar",
    "lineterminator",
    "quotechar",
    "quoting",
    "skipinitialspace",
    "strict",
)


def _environ(library: Any) -> Values:
    # As bytes: what `os.environ` itself does with each name and value takes 30 times as long.
    data: Values = getattr(library.environ, "_data", None) or dict(library.environb)
    return data


def _set_environ(library: Any, name: Any, value: Any) -> None:
    if value is ...:
        library.environb.pop(name, None)
    else:
        library.environb[name] = value


def _set_path(library: Any, _: str, value: list[str]) -> None:
    """What only this process has stays in front: its initializer may have added it."""
    library.path[:] = [*(each for each in library.path if each not in value), *value]


def _gc(library: Any) -> Values:
    return {"enabled": library.isenabled(), "thresholds": library.get_threshold()}


def _set_gc(library: Any, name: str, value: Any) -> None:
    if name == "thresholds":
        library.set_threshold(*value)
    else:
        (library.enable if value else library.disable)()


def _stack_size(library: Any) -> Values:
    if size := library.stack_size():  # to ask is to set it to 0
        library.stack_size(size)
    return {"size": size}


def _locale(library: Any) -> Values:
    """By category; the one for characters is set at the start, from the environment."""
    environ = _environ(os)
    asked = environ.get(b"LC_ALL") or environ.get(b"LC_CTYPE") or environ.get(b"LANG") or b"C"
    now = library.setlocale(library.LC_ALL), asked
    known, values = _latest_locales[0]
    if known != now:  # to ask for all at once takes a sixth of the time
        values = {name: library.setlocale(getattr(library, name)) for name in _CATEGORIES}
        if values["LC_CTYPE"] in (asked.decode(), "C", "C.UTF-8"):
            del values["LC_CTYPE"]
        if library.setlocale(library.LC_ALL) == now[0]:  # no other thread has set one meanwhile
            _latest_locales[0] = now, values
    return values


_latest_locales: list[tuple[Any, Values]] = [(None, {})]


def _zone(library: Any) -> Values:
    return {"names": library.tzname} if b"TZ" in _environ(os) else {}


def _set_zone(library: Any, _: str, value: Any) -> None:
    if library.tzname != value:
        library.tzset()


def _decimal(library: Any) -> Values:
    return {
        "context": _as_tuple(library.getcontext()),
        "default": _as_tuple(library.DefaultContext),
    }


_read_context = attrgetter("prec", "rounding", "Emin", "Emax", "capitals", "clamp")
_TRAPS = ("DivisionByZero", "InvalidOperation", "Overflow")
# Made at first use: the traps of two contexts are compared in one step of C
_usual_context: list[Any] = []


def _as_tuple(context: Any) -> tuple[Any, ...]:
    traps = context.traps
    if not _usual_context:
        _usual_context.append(
            type(context)(traps=[signal for signal in traps if signal.__name__ in _TRAPS])
        )
    names = (
        _TRAPS
        if traps == _usual_context[0].traps
        else tuple(sorted(signal.__name__ for signal, on in traps.items() if on))
    )
    return (*_read_context(context), names)


def _set_decimal(library: Any, name: str, value: tuple[Any, ...]) -> None:
    context = library.Context(*value[:-1], [], [getattr(library, trap) for trap in value[-1]])
    if name == "context":
        library.setcontext(context)
        return
    for attribute in ("prec", "rounding", "Emin", "Emax", "capitals", "clamp", "traps"):
        setattr(library.DefaultContext, attribute, getattr(context, attribute))


_DECIMAL = (28, "ROUND_HALF_EVEN", -999999, 999999, 1, 0, _TRAPS)


def _dialects(library: Any) -> Values:
    found = {
        name: library.get_dialect(name) for name in library.list_dialects() if name not in _DIALECTS
    }
    return {
        name: tuple(getattr(dialect, each) for each in _DIALECT) for name, dialect in found.items()
    }


def _set_dialect(library: Any, name: str, value: Any) -> None:
    if value is ...:
        library.unregister_dialect(name)
    else:
        library.register_dialect(name, **dict(zip(_DIALECT, value, strict=True)))


class LargeTable:
    """What was chosen from a large table: the same object, as long as it is the same table.

    Args:
        choose: of the library and a copy of its table, what the program has set.
    """

    def __init__(self, choose: Callable[[Any, Values], Values]) -> None:
        self._choose = choose
        self._known: tuple[Values, Values] = {}, {}  # table and choice, set in one step

    def choose(self, library: Any, table: Values) -> Values:
        """What the program has set in the table."""
        known, chosen = self._known
        if table != known:
            copied = table.copy()  # first: another thread may change the table meanwhile
            chosen = self._choose(library, copied)
            self._known = copied, chosen
        return chosen


_variables = LargeTable(lambda _, copied: copied)


def _environment(library: Any) -> Values:
    return _variables.choose(library, _environ(library))


def _added_types(library: Any, table: Values) -> Values:
    """Those beside the module's own and the system's."""
    usual = library.MimeTypes(filter(os.path.isfile, library.knownfiles)).types_map[True]
    return dict(table.items() - usual.items())


_media = LargeTable(_added_types)


def _media_types(library: Any) -> Values:
    return _media.choose(library, library.types_map) if library.inited else {}


def _set_media_type(library: Any, name: str, value: Any) -> None:
    if value is ...:
        library.types_map.pop(name, None)
    else:
        library.add_type(value, name)


def _temporary(library: Any) -> Values:
    """But for what the module finds out for itself."""
    found = _environ(os).get(b"TMPDIR", b"/tmp").decode()
    return {"tempdir": None if library.tempdir in (found, "/tmp") else library.tempdir}


def _loop_policy(library: Any) -> Values:
    policy = library._event_loop_policy  # the public function would make one
    return {} if policy is None else {"class": type(policy)}


def _set_loop_policy(library: Any, _: str, value: Any) -> None:
    library.set_event_loop_policy(None if value is ... else value())


STANDARD = (
    Setting("the environment", "os", _environment, _set_environ),
    Setting("sys.path", "sys", lambda library: {"": list(library.path)}, _set_path),
    Setting(
        "the working folder",
        "os",
        lambda _: {"": working_folder()},
        lambda library, _, value: library.chdir(value),
    ),
    pairs(
        "limits of the interpreter",
        "sys",
        ("getrecursionlimit", "setrecursionlimit", 1_000),
        ("get_int_max_str_digits", "set_int_max_str_digits", 4_300),
        ("getswitchinterval", "setswitchinterval", 0.005),
    ),
    Setting(
        "the garbage collector", "gc", _gc, _set_gc, {"enabled": True, "thresholds": (700, 10, 10)}
    ),
    Setting(
        "the stack of new threads",
        "threading",
        _stack_size,
        lambda library, _, size: library.stack_size(size),
        {"size": 0},
    ),
    Setting(
        "the locale",
        "locale",
        _locale,
        lambda library, name, value: library.setlocale(
            getattr(library, name), "" if value is ... else value
        ),
        dict.fromkeys(_CATEGORIES[1:], "C"),
    ),
    Setting("the time zone", "time", _zone, _set_zone),
    Setting(
        "decimal's context",
        "decimal",
        _decimal,
        _set_decimal,
        {"context": _DECIMAL, "default": _DECIMAL},
        of_thread=True,
    ),
    pairs("socket's timeout", "socket", ("getdefaulttimeout", "setdefaulttimeout", None)),
    pairs("csv's limit of a field", "csv", ("field_size_limit", "field_size_limit", 131_072)),
    Setting("csv's dialects", "csv", _dialects, _set_dialect),
    Setting("mimetypes' table", "mimetypes", _media_types, _set_media_type),
    pairs("calendar's first day", "calendar", ("firstweekday", "setfirstweekday", 0)),
    Setting(
        "tempfile's folder",
        "tempfile",
        _temporary,
        lambda library, name, value: setattr(library, name, value),
        {"tempdir": None},
    ),
    Setting("logging's classes and levels", "logging", log_settings, set_log_settings),
    Setting("asyncio's policy", "asyncio.events", _loop_policy, _set_loop_policy),
)
