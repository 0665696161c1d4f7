# SPDX-License-Identifier: BSD-3-Clause
"""What a program can set in the interpreter, the standard library and packages: one table, a row for each.

A row reads what is set, and sets it where an item runs; values are small, and compare by value. `usual` is what there is where
nothing was set, so that only what was set travels, and no worker imports a library for nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

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


def _pairs(title: str, module: str, *rows: tuple[str, str, Any], of_thread: bool = False) -> Setting:
    """Rows of a function that tells, one that sets, and the usual value."""
    setters = {getter: setter for getter, setter, _ in rows}

    def read(library: Any) -> Values:
        return {getter: getattr(library, getter)() for getter in setters}

    def write(library: Any, name: str, value: Any) -> None:
        getattr(library, setters[name])(value)

    return Setting(title, module, read, write, {getter: usual for getter, _, usual in rows}, of_thread)


def _attributes(title: str, module: str, **usual: Any) -> Setting:
    """Attributes of a module that its documentation says to set."""
    return Setting(title, module, lambda library: {name: getattr(library, name) for name in usual}, setattr, usual)


# --- the interpreter and the standard library ------------------------------------------------------------------------------------

_CATEGORIES = ("LC_CTYPE", "LC_NUMERIC", "LC_TIME", "LC_COLLATE", "LC_MONETARY", "LC_MESSAGES")
_DIALECTS = ("excel", "excel-tab", "unix")
_DIALECT = ("delimiter", "doublequote", "escapechar", "lineterminator", "quotechar", "quoting", "skipinitialspace", "strict")


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
    values = {name: library.setlocale(getattr(library, name)) for name in _CATEGORIES}
    environ = _environ(os)
    asked = environ.get(b"LC_ALL") or environ.get(b"LC_CTYPE") or environ.get(b"LANG") or b"C"
    if values["LC_CTYPE"] in (asked.decode(), "C", "C.UTF-8"):
        del values["LC_CTYPE"]
    return values


def _zone(library: Any) -> Values:
    return {"names": library.tzname} if b"TZ" in _environ(os) else {}


def _set_zone(library: Any, _: str, value: Any) -> None:
    if library.tzname != value:
        library.tzset()


def _decimal(library: Any) -> Values:
    return {"context": _as_tuple(library.getcontext()), "default": _as_tuple(library.DefaultContext)}


_read_context = attrgetter("prec", "rounding", "Emin", "Emax", "capitals", "clamp")
_TRAPS = ("DivisionByZero", "InvalidOperation", "Overflow")
_usual_context: list[Any] = []  # made at first use: the traps of two contexts are compared in one step of C


def _as_tuple(context: Any) -> tuple[Any, ...]:
    traps = context.traps
    if not _usual_context:
        _usual_context.append(type(context)(traps=[signal for signal in traps if signal.__name__ in _TRAPS]))
    names = _TRAPS if traps == _usual_context[0].traps else tuple(sorted(signal.__name__ for signal, on in traps.items() if on))
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
    found = {name: library.get_dialect(name) for name in library.list_dialects() if name not in _DIALECTS}
    return {name: tuple(getattr(dialect, each) for each in _DIALECT) for name, dialect in found.items()}


def _set_dialect(library: Any, name: str, value: Any) -> None:
    if value is ...:
        library.unregister_dialect(name)
    else:
        library.register_dialect(name, **dict(zip(_DIALECT, value, strict=True)))


class _Large:
    """What was chosen from a table of a thousand entries, as long as it is the same table."""

    def __init__(self, choose: Callable[[Any, Values], Values]) -> None:
        self._choose = choose
        self._table: Values = {}
        self._chosen: Values = {}

    def choose(self, library: Any, table: Values) -> Values:
        if table != self._table:
            self._chosen, self._table = self._choose(library, table), table.copy()
        return self._chosen


def _added_types(library: Any, table: Values) -> Values:
    """Those beside the module's own and the system's."""
    usual = library.MimeTypes(filter(os.path.isfile, library.knownfiles)).types_map[True]
    return dict(table.items() - usual.items())


_media = _Large(_added_types)


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
    Setting("the environment", "os", lambda library: dict(_environ(library)), _set_environ),
    Setting("sys.path", "sys", lambda library: {"": list(library.path)}, _set_path),
    Setting("the working folder", "os", lambda library: {"": library.getcwd()}, lambda library, _, value: library.chdir(value)),
    _pairs(
        "limits of the interpreter",
        "sys",
        ("getrecursionlimit", "setrecursionlimit", 1_000),
        ("get_int_max_str_digits", "set_int_max_str_digits", 4_300),
        ("getswitchinterval", "setswitchinterval", 0.005),
    ),
    Setting("the garbage collector", "gc", _gc, _set_gc, {"enabled": True, "thresholds": (700, 10, 10)}),
    Setting("the stack of new threads", "threading", _stack_size, lambda library, _, size: library.stack_size(size), {"size": 0}),
    Setting(
        "the locale",
        "locale",
        _locale,
        lambda library, name, value: library.setlocale(getattr(library, name), "" if value is ... else value),
        dict.fromkeys(_CATEGORIES[1:], "C"),
    ),
    Setting("the time zone", "time", _zone, _set_zone),
    Setting("decimal's context", "decimal", _decimal, _set_decimal, {"context": _DECIMAL, "default": _DECIMAL}, of_thread=True),
    _pairs("socket's timeout", "socket", ("getdefaulttimeout", "setdefaulttimeout", None)),
    _pairs("csv's limit of a field", "csv", ("field_size_limit", "field_size_limit", 131_072)),
    Setting("csv's dialects", "csv", _dialects, _set_dialect),
    Setting("mimetypes' table", "mimetypes", _media_types, _set_media_type),
    _pairs("calendar's first day", "calendar", ("firstweekday", "setfirstweekday", 0)),
    Setting(
        "tempfile's folder", "tempfile", _temporary, lambda library, name, value: setattr(library, name, value), {"tempdir": None}
    ),
    Setting("logging's classes and levels", "logging", log_settings, set_log_settings),
    Setting("asyncio's policy", "asyncio.events", _loop_policy, _set_loop_policy),
)

# --- packages --------------------------------------------------------------------------------------------------------------------

_PRINT_OPTIONS = {
    "edgeitems": 3, "threshold": 1_000, "floatmode": "maxprec", "precision": 8, "suppress": False, "linewidth": 75, "nanstr": "nan",
    "infstr": "inf", "sign": "-", "formatter": None, "legacy": False, "override_repr": None,
}  # fmt: skip
_SKLEARN = {
    "assume_finite": False, "working_memory": 1024, "print_changed_only": True, "display": "diagram",
    "pairwise_dist_chunk_size": 256, "enable_cython_pairwise_dist": True, "array_api_dispatch": False,
    "transform_output": "default", "enable_metadata_routing": False, "skip_parameter_validation": False,
}  # fmt: skip
_NUMPY_ERRORS = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}
_SCIPY_ERRORS = ("singular", "underflow", "overflow", "slow", "loss", "no_result", "domain", "arg", "other")
_TORCH_PRINTING = {"precision": 4, "threshold": 1_000, "edgeitems": 3, "linewidth": 80, "sci_mode": None}


def _by_keyword(function: str) -> Callable[[Any, str, Any], object]:
    return lambda library, name, value: getattr(library, function)(**{name: value})


def _torch(library: Any) -> Values:
    dtype = library.get_default_dtype()
    return {
        **({} if dtype is library.float32 else {"dtype": dtype}),
        "matmul": library.get_float32_matmul_precision(),
        "deterministic": (library.are_deterministic_algorithms_enabled(), library.is_deterministic_algorithms_warn_only_enabled()),
    }


def _set_torch(library: Any, name: str, value: Any) -> None:
    if name == "dtype":
        library.set_default_dtype(library.float32 if value is ... else value)
    elif name == "matmul":
        library.set_float32_matmul_precision(value)
    else:
        library.use_deterministic_algorithms(value[0], warn_only=value[1])


def _torch_thread(library: Any) -> Values:
    kinds = [kind for kind in ("cpu", "cuda") if library.is_autocast_enabled(kind)]
    values = {"grad": library.is_grad_enabled(), "inference": library.is_inference_mode_enabled()}
    values |= {kind: library.get_autocast_dtype(kind) for kind in kinds}
    if (device := library.get_default_device()).type != "cpu":
        values["device"] = device
    return values


def _set_torch_thread(library: Any, name: str, value: Any) -> None:
    if name == "grad":
        library.set_grad_enabled(value)
    elif name == "inference":
        library.inference_mode(value).__enter__()
    elif name == "device":
        library.set_default_device(None if value is ... else value)
    else:
        library.set_autocast_enabled(name, value is not ...)
        if value is not ...:
            library.set_autocast_dtype(name, value)


def _torch_printing(library: Any) -> Values:
    return {name: getattr(library.PRINT_OPTS, name) for name in _TORCH_PRINTING}


def _pandas(library: Any) -> Values:
    """What differs from the value with which an option was registered."""
    values: Values = {}
    registered = library._registered_options
    pending = [("", library._global_config)]
    while pending:
        prefix, branch = pending.pop()
        for name, value in branch.items():
            if isinstance(value, dict):
                pending.append((f"{prefix}{name}.", value))
            elif (option := registered.get(prefix + name)) is not None and option.defval != value:
                values[prefix + name] = value
    return values


def _set_pandas(library: Any, name: str, value: Any) -> None:
    if value is ...:
        library.reset_option(name)
    else:
        library.set_option(name, value)


def _chosen_parameters(library: Any, table: Values) -> Values:
    usual = dict(dict.items(library.rcParamsDefault))
    return {name: value for name, value in table.items() if name[:7] != "backend" and usual.get(name) != value}


_parameters = _Large(_chosen_parameters)


def _matplotlib(library: Any) -> Values:
    return _parameters.choose(library, dict(dict.items(library.rcParams)))  # as a dict: to ask for the backend is to choose one


def _sklearn(library: Any) -> Values:
    values = library.get_config()
    return {name: values.get(name, usual) for name, usual in _SKLEARN.items()}


def _set_matplotlib(library: Any, name: str, value: Any) -> None:
    library.rcParams[name] = library.rcParamsDefault[name] if value is ... else value


PACKAGES = (
    Setting("numpy.seterr", "numpy", lambda library: library.geterr(), _by_keyword("seterr"), _NUMPY_ERRORS, of_thread=True),
    _pairs(
        "NumPy's call on errors", "numpy", ("geterrcall", "seterrcall", None), ("getbufsize", "setbufsize", 8_192), of_thread=True
    ),
    Setting(
        "numpy.set_printoptions",
        "numpy",
        lambda library: library.get_printoptions(),
        _by_keyword("set_printoptions"),
        _PRINT_OPTIONS,
        of_thread=True,
    ),
    Setting("torch's defaults", "torch", _torch, _set_torch, {"matmul": "highest", "deterministic": (False, False)}),
    Setting("torch's modes", "torch", _torch_thread, _set_torch_thread, {"grad": True, "inference": False}, of_thread=True),
    Setting(
        "torch.set_printoptions",
        "torch._tensor_str",
        _torch_printing,
        _by_keyword("set_printoptions"),
        _TORCH_PRINTING,
    ),
    _attributes("cuDNN's switches", "torch.backends.cudnn", enabled=True, benchmark=False, deterministic=False),
    Setting("pandas' options", "pandas._config.config", _pandas, _set_pandas),
    Setting("matplotlib.rcParams", "matplotlib", _matplotlib, _set_matplotlib),
    Setting("sklearn.set_config", "sklearn", _sklearn, _by_keyword("set_config"), _SKLEARN, of_thread=True),
    Setting(
        "scipy.special.seterr",
        "scipy.special",
        lambda library: library.geterr(),
        _by_keyword("seterr"),
        {**dict.fromkeys(_SCIPY_ERRORS, "ignore"), "memory": "raise"},
    ),
    Setting(
        "mpmath's precision",
        "mpmath",
        lambda library: {"prec": library.mp.prec},
        lambda library, name, value: setattr(library.mp, name, value),
        {"prec": 53},
    ),
    _attributes("Pillow's limit of pixels", "PIL.Image", MAX_IMAGE_PIXELS=89_478_485),
    _attributes("Pillow's patience", "PIL.ImageFile", LOAD_TRUNCATED_IMAGES=False),
)

SETTINGS = STANDARD + PACKAGES
