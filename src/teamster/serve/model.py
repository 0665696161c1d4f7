# SPDX-License-Identifier: BSD-3-Clause
"""What is served, whatever it is: one input each, many at a time, on tensors or on objects.

::

    nn.Module, TorchScript     tensors of a batch, stacked    eval and inference mode
    an estimator (predict)     an array of a batch
    function, batched=True     a list of inputs --> as many outputs
    function, object, class    one input --> one output;  a class is made anew in each replica
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any, get_args, get_type_hints

from teamster.errors import UsageError
from teamster.serve.errors import WrongInput

Compute = Callable[[list[Any]], list[Any]]
"""Of a batch: as many outputs as inputs."""


class Model:
    """Something to serve.

    Args:
        served: a torch module, an estimator, a callable, an object or a class with `predict`.
        batched: whether it takes a list of inputs; None for what its kind does.

    Attributes:
        name: for people.
        batches: whether several inputs are computed at a time.
        input_kind: of one input, by annotations.
        streams: whether it yields its output in parts.

    Raises:
        UsageError: it is none of these.

    Example:
        >>> model = Model(lambda numbers: [2 * each for each in numbers], batched=True)
        >>> model.replica()([1, 2])
        [2, 4]
        >>> Model(abs).replica()([-1, -2])
        [1, 2]
    """

    def __init__(self, served: Any, batched: bool | None = None) -> None:
        self._served = served
        self.name = getattr(served, "__name__", None) or type(served).__name__
        self.input_kind: Any = Any
        self.streams = False
        self._torch = _is_module(served)
        self._estimator = not self._torch and all(
            callable(getattr(served, name, None)) for name in ("predict", "get_params")
        )
        whole = self._torch or self._estimator
        self.batches = whole if batched is None else batched
        if whole:
            return
        function = self._function(served)
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise UsageError(f"{self.name} is async; a model is a plain function or a generator")
        self.streams = inspect.isgeneratorfunction(function)
        self.input_kind = _input_kind(function, self.batches)

    @staticmethod
    def _function(served: Any) -> Callable[..., Any]:
        predict = getattr(served, "predict", None)
        if callable(predict):
            return predict  # type: ignore[no-any-return]
        if isinstance(served, type) or not callable(served):
            raise UsageError(
                f"a model is a torch module, a callable, or has predict(); not {served!r:.80}"
            )
        return served  # type: ignore[no-any-return]

    def key(self, value: Any) -> Any:
        """What inputs have in common that can be computed in one batch."""
        return _shape(value) if self._torch or self._estimator else None

    def prepare(self, value: Any) -> Any:
        """An input as the model takes it.

        Raises:
            WrongInput: it cannot be made of the value.
        """
        if self._torch:
            return _tensors(value, takes_integers=self._takes_integers)
        return value

    @property
    def _takes_integers(self) -> bool:
        torch = sys.modules["torch"]
        return any(isinstance(each, torch.nn.Embedding) for each in self._served.modules())

    def replica(self) -> Compute:
        """What one of the replicas computes with."""
        if self._torch:
            return _of_module(self._served)
        if self._estimator:
            return _of_estimator(self._served)
        served = self._served
        if isinstance(served, type):
            served = served()
            if callable(getattr(served, "setup", None)):
                served.setup()
        function = self._function(served)
        if not self.batches:
            return lambda values: [function(value) for value in values]

        def compute(values: list[Any]) -> list[Any]:
            return _as_many(function(values), len(values))

        return compute


def _is_module(served: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(served, torch.nn.Module)


def _input_kind(function: Callable[..., Any], batched: bool) -> Any:
    """The annotation of its first argument; of the items of a batch, where it takes one."""
    try:
        names = list(inspect.signature(function).parameters)
        hints = get_type_hints(function)
    except (TypeError, ValueError, NameError):  # it has no signature, or names what is not there
        return Any
    kind = hints.get(names[0], Any) if names else Any
    if not batched:
        return kind
    arguments: tuple[Any, ...] = get_args(kind)
    return arguments[0] if len(arguments) == 1 else Any


def _shape(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple((name, _shape(each)) for name, each in value.items())
    if hasattr(value, "shape"):
        return (*value.shape, str(value.dtype))
    shape: list[Any] = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return (*shape, type(value))


def show_key(key: Any) -> str:
    """A shape and a type, for people.

    Example:
        >>> show_key((2, 3, float)), show_key((("x", (4, int)),))
        ('2 x 3 float', '{x: 4 int}')
    """
    if key and isinstance(key[0], tuple):
        return "{" + ", ".join(f"{name}: {show_key(each)}" for name, each in key) + "}"
    *sizes, kind = key
    shown = getattr(kind, "__name__", str(kind))
    return " ".join([" x ".join(map(str, sizes)), shown]).strip()


def _tensors(value: Any, *, takes_integers: bool) -> Any:
    torch = sys.modules["torch"]
    if isinstance(value, dict):
        return {name: _tensors(each, takes_integers=takes_integers) for name, each in value.items()}
    try:
        if hasattr(value, "__array_interface__"):
            found = torch.from_numpy(value.copy() if not value.flags.writeable else value)
        else:
            found = torch.tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise WrongInput(f"no tensor can be made of it: {error}") from None
    if not found.is_floating_point() and not takes_integers and not found.is_complex():
        return found.to(torch.get_default_dtype())
    return found


def _of_module(module: Any) -> Compute:
    torch = sys.modules["torch"]
    with contextlib.suppress(NotImplementedError):  # of torch.export: it has one mode only
        module.eval()
    parameter = next(iter(module.parameters()), None)

    def compute(values: list[Any]) -> list[Any]:
        with torch.inference_mode():
            if isinstance(values[0], dict):
                batch = {
                    name: _moved(torch.stack([each[name] for each in values]), parameter)
                    for name in values[0]
                }
                return _split(module(**batch), len(values))
            return _split(module(_moved(torch.stack(values), parameter)), len(values))

    return compute


def _moved(batch: Any, parameter: Any) -> Any:
    """On the device of the parameters, and of their type where it is a float."""
    if parameter is None:
        return batch
    if batch.is_floating_point() and parameter.is_floating_point():
        return batch.to(parameter.device, parameter.dtype)
    return batch.to(parameter.device)


def _of_estimator(estimator: Any) -> Compute:
    import numpy

    def compute(values: list[Any]) -> list[Any]:
        return _as_many(estimator.predict(numpy.asarray(values)), len(values))

    return compute


def _split(output: Any, count: int) -> list[Any]:
    """The rows of what a module has returned."""
    if isinstance(output, dict):
        columns = {name: _split(each, count) for name, each in output.items()}
        return [{name: rows[index] for name, rows in columns.items()} for index in range(count)]
    if isinstance(output, tuple):
        parts = [_split(each, count) for each in output]
        return [tuple(rows[index] for rows in parts) for index in range(count)]
    return _as_many(output, count)


def _as_many(outputs: Any, count: int) -> list[Any]:
    if not isinstance(outputs, Sequence) and not hasattr(outputs, "__len__"):
        outputs = list(outputs)
    if isinstance(outputs, (str, bytes, dict)) or len(outputs) != count:
        raise UsageError(
            f"the model was given {count} inputs, and has returned "
            + (
                f"{len(outputs)} outputs"
                if not isinstance(outputs, (str, bytes, dict))
                else type(outputs).__name__
            )
            + ": a batched model returns as many as it is given"
        )
    return list(outputs)
