# SPDX-License-Identifier: BSD-3-Clause
"""Objects to bytes and back: plain pickle where it serves, by value where it must.

::

    object --pickle 5-------------> data + buffers      (the fast path: C code, no look at the object)
       |
       +--names ``__main__``, or plain pickle refuses--> cloudpickle, by value

A worker never imports the program's ``__main__``, so whatever lives there (functions, classes, enums) travels by value. All of
it lands in the *one* ``__main__`` namespace of the worker: a global that the initializer set is there when the task looks.

Large buffers (NumPy arrays, CPU torch tensors, ``pickle.PickleBuffer``) are left out of the data, to travel without a copy.
"""

from __future__ import annotations

import contextvars
import copyreg
import io
import pickle
import sys
from collections import ChainMap
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from teamster.spine.transport import multiprocessing_objects
from teamster.spine.transport.multiprocessing_objects import Passed, Passing

INLINE_BYTES = 32 * 1024
"""Buffers smaller than this stay inside the pickle (bytes): a mapping of their own would cost more than the copy."""

_PROTOCOL = 5
_MISSING = object()
_planted: dict[str, object] = {}


class Parcel:
    """A pickled object: `data` (bytes), and the large `buffers` (flat views) and descriptors (`passed`) that belong to it."""

    __slots__ = ("buffers", "data", "passed")

    def __init__(self, data: bytes, buffers: list[memoryview], passed: Sequence[Passed] = ()) -> None:
        self.data = data
        self.buffers = buffers
        self.passed = passed

    @property
    def nbytes(self) -> int:
        """Size of data and buffers together, in bytes."""
        return len(self.data) + sum(view.nbytes for view in self.buffers)


def pack(value: object) -> Parcel:
    """Pickle `value`, by reference where possible and by value where needed.

    Raises:
        Exception: cloudpickle cannot pickle `value` either.
    """
    return pack_by_reference(value) or pack_by_value(value)


def pack_by_reference(value: object) -> Parcel | None:
    """Pickle `value` as plain pickle does; None where that would not serve a worker."""
    buffers: list[memoryview] = []
    with Passing() as passed:
        data = _dump_by_reference(value, _collector(buffers))
    return None if data is None else Parcel(data, buffers, passed)


def pack_by_value(value: object) -> Parcel:
    """Pickle `value` with cloudpickle: functions and classes that the worker cannot import travel as code."""
    buffers: list[memoryview] = []
    with Passing() as passed:
        return Parcel(_dump_by_value(value, _collector(buffers)), buffers, passed)


def pack_whole(value: object) -> bytes:
    """Pickle `value` as `pack` does, with its buffers inside.

    Raises:
        Exception: cloudpickle cannot pickle `value` either.
    """
    data = _dump_by_reference(value, _stay_inside)
    return _dump_by_value(value, _stay_inside) if data is None else data


def unpack(data: bytes | memoryview, buffers: list[memoryview]) -> Any:
    """The object back from its data and buffers; the arrays in it are views of `buffers`."""
    return pickle.loads(data, buffers=buffers) if buffers else pickle.loads(data)


def unpack_function(data: bytes | memoryview, buffers: list[memoryview]) -> Any:
    """Like `unpack`, and what the worker itself has changed in ``__main__`` since stays as the worker made it.

    A function of ``__main__`` brings the globals that it names along. The initializer may have replaced some of them (``db =
    connect()``); a later function must find that value and not the ``None`` of the parent.
    """
    namespace = sys.modules["__main__"].__dict__
    before = dict(namespace)
    value = unpack(data, buffers)
    for name, now in list(namespace.items()):
        was = before.get(name, _MISSING)
        if was is now:
            continue
        if was is _MISSING or was is _planted.get(name, _MISSING):
            _planted[name] = now
        else:
            namespace[name] = was
    return value


def _collector(buffers: list[memoryview]) -> Callable[[pickle.PickleBuffer], bool]:
    """A buffer callback: large contiguous buffers go to `buffers`, the others stay in the pickle."""

    def collect(buffer: pickle.PickleBuffer) -> bool:
        try:
            view = buffer.raw()
        except BufferError:
            return True
        if view.nbytes < INLINE_BYTES:
            return True
        buffers.append(view)
        return False

    return collect


def _stay_inside(buffer: pickle.PickleBuffer) -> bool:
    """A buffer callback: all buffers stay in the pickle."""
    return True


def _dump_by_reference(value: object, callback: Callable[[pickle.PickleBuffer], bool]) -> bytes | None:
    try:
        data = _dump_plain(value, callback)
    except Exception:
        return None
    return None if b"__main__" in data else data


def _dump_by_value(value: object, callback: Callable[[pickle.PickleBuffer], bool]) -> bytes:
    stream = io.BytesIO()
    _by_value_pickler()(stream, protocol=_PROTOCOL, buffer_callback=callback).dump(value)
    return stream.getvalue()


def _dump_plain(value: object, callback: Callable[[pickle.PickleBuffer], bool]) -> bytes:
    torch, of_multiprocessing = sys.modules.get("torch"), multiprocessing_objects.reducers()
    if (torch is None or not hasattr(torch, "Tensor")) and of_multiprocessing is None:
        return pickle.dumps(value, _PROTOCOL, buffer_callback=callback)
    stream = io.BytesIO()
    pickler = pickle.Pickler(stream, _PROTOCOL, buffer_callback=callback)
    known: Any = of_multiprocessing or copyreg.dispatch_table
    pickler.dispatch_table = known if torch is None else ChainMap({torch.Tensor: reduce_tensor}, known)
    pickler.dump(value)
    return stream.getvalue()


def reduce_tensor(tensor: Any) -> Any:
    """Reduce a CPU tensor to a buffer, and any other tensor as torch does."""
    torch = sys.modules["torch"]
    plain = tensor.device.type == "cpu" and tensor.layout is torch.strided and tensor.is_contiguous()
    if not plain or tensor.is_quantized or tensor.is_conj() or tensor.is_neg() or not tensor.is_leaf or tensor.__dict__:
        return tensor.__reduce_ex__(_PROTOCOL)
    flat = tensor.detach().reshape(-1).view(torch.uint8) if tensor.numel() else tensor.detach().new_empty(0, dtype=torch.uint8)
    return rebuild_tensor, (pickle.PickleBuffer(flat.numpy()), tensor.dtype, tuple(tensor.shape), tensor.requires_grad)


def rebuild_tensor(buffer: Any, dtype: Any, shape: tuple[int, ...], requires_grad: bool) -> Any:
    """The tensor back, on top of `buffer` (bytes), which it keeps alive."""
    torch = import_module("torch")  # the sender had it, so this process can load it
    if not len(memoryview(buffer)):
        return torch.empty(shape, dtype=dtype, requires_grad=requires_grad)
    if memoryview(buffer).readonly:
        buffer = bytearray(buffer)
    return torch.frombuffer(buffer, dtype=torch.uint8).view(dtype).reshape(shape).requires_grad_(requires_grad)


# --- by value -----------------------------------------------------------------------------------------------------------------


class MainGlobals:
    """Stands for the globals of ``__main__``: wherever it is unpickled it becomes the namespace of ``__main__`` there."""

    def __reduce__(self) -> tuple[Callable[[], dict[str, Any]], tuple[()]]:
        return main_namespace, ()


def main_namespace() -> dict[str, Any]:
    """The namespace of this process's ``__main__``."""
    return sys.modules["__main__"].__dict__


def find_context_variable(module: str, name: str) -> contextvars.ContextVar[Any]:
    """The context variable called `name` of `module` (by its attribute there); in ``__main__`` it is made when missing."""
    if module == "__main__":
        made: contextvars.ContextVar[Any] = main_namespace().setdefault(name, contextvars.ContextVar(name))
        return made
    __import__(module)
    found: contextvars.ContextVar[Any] = getattr(sys.modules[module], name)
    return found


def locate_context_variable(variable: contextvars.ContextVar[Any]) -> tuple[str, str] | None:
    """Module and attribute name that hold `variable`, None when no module does: it is an object without an address."""
    for module_name, module in list(sys.modules.items()):
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if value is variable:
                return module_name, name
    return None


def _reduce_context_variable(variable: contextvars.ContextVar[Any]) -> Any:
    address = locate_context_variable(variable)
    if address is None:
        raise pickle.PicklingError(f"context variable {variable.name!r} is not a global of any module")
    return find_context_variable, address


_pickler_class: type[pickle.Pickler] | None = None
_main_travels = True


def keep_main_here() -> None:
    """Called in a worker: what it sends back must not write its globals into the ``__main__`` of the program."""
    global _main_travels
    _main_travels = False


def _by_value_pickler() -> type[pickle.Pickler]:
    """The cloudpickle pickler with one ``__main__`` for all; made on first use because cloudpickle is slow to import."""
    global _pickler_class
    if _pickler_class is None:
        import cloudpickle

        class ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc]
            def __init__(self, stream: io.BytesIO, **options: Any) -> None:
                super().__init__(stream, **options)
                # cloudpickle gives the functions of one dump a globals dict of their own; here they share __main__'s.
                if _main_travels:
                    self.globals_ref[id(main_namespace())] = MainGlobals()

            def reducer_override(self, value: Any) -> Any:
                if isinstance(value, contextvars.ContextVar):
                    return _reduce_context_variable(value)
                torch = sys.modules.get("torch")
                if torch is not None and type(value) is getattr(torch, "Tensor", None):
                    return reduce_tensor(value)
                if (of_multiprocessing := multiprocessing_objects.reducers(for_any_socket=True)) and (
                    reduce := of_multiprocessing.get(type(value))
                ):
                    return reduce(value)
                return super().reducer_override(value)

        _pickler_class = ByValuePickler
    return _pickler_class
