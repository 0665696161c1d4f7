# SPDX-License-Identifier: BSD-3-Clause
"""What a program can set in packages, as rows like those of settings.py."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from teamster.spine.workers.settings import LargeTable, Setting, Values, attributes

_PRINT_OPTIONS = {
    "edgeitems": 3, "threshold": 1_000, "floatmode": "maxprec", "precision": 8, "suppress": False,
    "linewidth": 75, "nanstr": "nan", "infstr": "inf", "sign": "-", "formatter": None,
    "legacy": False, "override_repr": None,
}  # fmt: skip
_SKLEARN = {
    "assume_finite": False, "working_memory": 1024, "print_changed_only": True,
    "display": "diagram", "pairwise_dist_chunk_size": 256, "enable_cython_pairwise_dist": True,
    "array_api_dispatch": False, "transform_output": "default", "enable_metadata_routing": False,
    "skip_parameter_validation": False,
}  # fmt: skip
_NUMPY_ERRORS = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}
_SCIPY_ERRORS = (
    "singular", "underflow", "overflow", "slow", "loss", "no_result", "domain", "arg", "other",
)  # fmt: skip
_ONLY_FILES = ("agg", "cairo", "pdf", "pgf", "ps", "svg")  # matplotlib's backends without windows
_TORCH_PRINTING = {
    "precision": 4, "threshold": 1_000, "edgeitems": 3, "linewidth": 80, "sci_mode": None,
}  # fmt: skip


def _by_keyword(function: str) -> Callable[[Any, str, Any], object]:
    return lambda library, name, value: getattr(library, function)(**{name: value})


def _numpy_errors(library: Any) -> Values:
    """All that `numpy.errstate` can set."""
    return {
        **library.geterr(),
        "call": library.geterrcall(),
        "size": library.getbufsize(),
    }


class _WhileTheSame:
    """What was read, as long as NumPy holds the same object for all of it (from 2.0 on).

    To ask its public functions takes 2 us of each submit.
    """

    def __init__(self) -> None:
        self._known: tuple[object, Values] = None, {}  # set in one step

    def __call__(self, library: Any) -> Values:
        try:
            now = library._core.umath._extobj_contextvar.get()
        except AttributeError:
            return _numpy_errors(library)
        known, values = self._known
        if now is not known:
            values = _numpy_errors(library)
            self._known = now, values
        return values


def _set_numpy_errors(library: Any, name: str, value: Any) -> None:
    if name in _NUMPY_ERRORS:
        library.seterr(**{name: value})
    else:
        {"call": library.seterrcall, "size": library.setbufsize}[name](value)


def _torch(library: Any) -> Values:
    dtype = library.get_default_dtype()
    return {
        **({} if dtype is library.float32 else {"dtype": dtype}),
        "matmul": library.get_float32_matmul_precision(),
        "deterministic": (
            library.are_deterministic_algorithms_enabled(),
            library.is_deterministic_algorithms_warn_only_enabled(),
        ),
        "anomalies": (library.is_anomaly_enabled(), library.is_anomaly_check_nan_enabled()),
        "warn_always": library.is_warn_always_enabled(),
    }


def _set_torch(library: Any, name: str, value: Any) -> None:
    if name == "dtype":
        library.set_default_dtype(library.float32 if value is ... else value)
    elif name == "matmul":
        library.set_float32_matmul_precision(value)
    elif name == "warn_always":
        library.set_warn_always(value)
    elif name == "anomalies":
        library.set_anomaly_enabled(*value)
    else:
        library.use_deterministic_algorithms(value[0], warn_only=value[1])


def _torch_thread(library: Any) -> Values:
    kinds = [kind for kind in ("cpu", "cuda") if library.is_autocast_enabled(kind)]
    values = {
        # Together: to enter or leave the inference mode sets the other, too
        "gradients": (library.is_inference_mode_enabled(), library.is_grad_enabled()),
        "cache": library.is_autocast_cache_enabled(),
    }
    values |= {kind: library.get_autocast_dtype(kind) for kind in kinds}
    if (device := library.get_default_device()).type != "cpu":
        values["device"] = device
    return values


def _set_torch_thread(library: Any, name: str, value: Any) -> None:
    if name == "gradients":
        _set_inference_mode(library, value[0])
        library.set_grad_enabled(value[1])
    elif name == "cache":
        library.set_autocast_cache_enabled(value)
    elif name == "device":
        library.set_default_device(None if value is ... else value)
    else:
        library.set_autocast_enabled(name, value is not ...)
        if value is not ...:
            library.set_autocast_dtype(name, value)


class _Modes(threading.local):
    """What a thread has entered: a mode ends with the object that stands for it."""

    inference: Any = None


_modes = _Modes()


def _set_inference_mode(library: Any, on: bool) -> None:
    entered, _modes.inference = _modes.inference, None
    if entered is not None:
        entered.__exit__(None, None, None)
    if library.is_inference_mode_enabled() != on:
        _modes.inference = library.inference_mode(on)
        _modes.inference.__enter__()


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
    return {
        name: value
        for name, value in table.items()
        if usual.get(name) != value
        and (name[:7] != "backend" or (type(value) is str and value.lower() in _ONLY_FILES))
    }


_parameters = LargeTable(_chosen_parameters)


def _matplotlib(library: Any) -> Values:
    # As a dict: to ask for the backend is to choose one
    return _parameters.choose(library, dict(dict.items(library.rcParams)))


def _sklearn(library: Any) -> Values:
    values = library.get_config()
    return {name: values.get(name, usual) for name, usual in _SKLEARN.items()}


def _set_matplotlib(library: Any, name: str, value: Any) -> None:
    library.rcParams[name] = library.rcParamsDefault[name] if value is ... else value


PACKAGES = (
    Setting(
        "numpy.seterr",
        "numpy",
        _WhileTheSame(),
        _set_numpy_errors,
        {**_NUMPY_ERRORS, "call": None, "size": 8_192},
        of_thread=True,
    ),
    Setting(
        "numpy.set_printoptions",
        "numpy",
        lambda library: library.get_printoptions(),
        _by_keyword("set_printoptions"),
        _PRINT_OPTIONS,
        of_thread=True,
    ),
    Setting(
        "torch's defaults",
        "torch",
        _torch,
        _set_torch,
        {
            "matmul": "highest",
            "deterministic": (False, False),
            "anomalies": (False, True),
            "warn_always": False,
        },
    ),
    Setting(
        "torch's modes",
        "torch",
        _torch_thread,
        _set_torch_thread,
        {"gradients": (False, True), "cache": True},
        of_thread=True,
    ),
    Setting(
        "torch.set_printoptions",
        "torch._tensor_str",
        _torch_printing,
        _by_keyword("set_printoptions"),
        _TORCH_PRINTING,
    ),
    attributes(
        "cuDNN's switches",
        "torch.backends.cudnn",
        enabled=True,
        benchmark=False,
        deterministic=False,
    ),
    Setting("pandas' options", "pandas._config.config", _pandas, _set_pandas),
    Setting("matplotlib.rcParams", "matplotlib", _matplotlib, _set_matplotlib),
    Setting(
        "sklearn.set_config",
        "sklearn",
        _sklearn,
        _by_keyword("set_config"),
        _SKLEARN,
        of_thread=True,
    ),
    Setting(
        "scipy.special.seterr",
        "scipy.special",
        lambda library: library.geterr(),
        _by_keyword("seterr"),
        {**dict.fromkeys(_SCIPY_ERRORS, "ignore"), "memory": "raise"},
        of_thread=True,
    ),
    Setting(
        "mpmath's precision",
        "mpmath",
        lambda library: {"prec": library.mp.prec},
        lambda library, name, value: setattr(library.mp, name, value),
        {"prec": 53},
    ),
    attributes("Pillow's limit of pixels", "PIL.Image", MAX_IMAGE_PIXELS=89_478_485),
    attributes("Pillow's patience", "PIL.ImageFile", LOAD_TRUNCATED_IMAGES=False),
)
