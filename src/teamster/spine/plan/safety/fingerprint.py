# SPDX-License-Identifier: BSD-3-Clause
"""Whether a value is still what it was: a checksum of its pickle, made without keeping the pickle.

Functions, classes and modules count by identity, so lambdas are welcome. What is bound to this
process (locks, open files, sockets) is named instead. A fingerprint has a deadline: a table of ten
million entries is not worth the look.
"""

from __future__ import annotations

import io
import pickle
import threading
import types
import zlib
from time import perf_counter
from typing import Any

# Of a checksum; a guess on the safe side, to see beforehand what a large buffer will take
_BYTES_PER_S = 1e9


class Bound(Exception):
    """The value is, or holds, something that belongs to this process, `what` of a kind: `value`."""

    def __init__(self, what: str, value: object) -> None:
        super().__init__(what)
        self.what = what
        self.value = value


class TooLong(Exception):
    """The value is larger than there is time for."""


def checksum(
    value: object, deadline: float, *, anywhere: bool = False, alone: bool = False
) -> tuple[int, int]:
    """Checksum and size of the pickle of `value`, its buffers included.

    Args:
        value: anything.
        deadline: moment of `time.perf_counter` at which to give up.
        alone: whether it is to travel without the function, which may ask whether it is the very
            object that it has, too.
        anywhere: whether it is to be compared with that of another process: then code counts by
            name, and sets in order.

    Returns:
        The checksum and the bytes; equal for equal values.

    Raises:
        Bound: the value belongs to this process.
        TooLong: the deadline passed, or would.
        Exception: the value does not pickle.

    Example:
        >>> numbers = [1, 2]
        >>> before = checksum(numbers, perf_counter() + 1)
        >>> numbers.append(3)
        >>> checksum(numbers, perf_counter() + 1) == before
        False
    """
    sink = _Sink(deadline)
    if anywhere and isinstance(value, (set, frozenset)):
        value = sorted(map(repr, value))
    kind = _NamePickler if anywhere else _LonePickler if alone else _Pickler
    kind(sink, 5, buffer_callback=sink.take_buffer).dump(value)
    return sink.crc, sink.nbytes


class _Sink:
    """A file that keeps a checksum only."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self.crc = self.nbytes = 0

    def write(self, data: Any) -> int:
        if perf_counter() + len(data) / _BYTES_PER_S > self._deadline:
            raise TooLong
        self.crc = zlib.crc32(data, self.crc)
        self.nbytes += len(data)
        return len(data)

    def take_buffer(self, buffer: pickle.PickleBuffer) -> bool:
        """A large buffer, in place of a copy of it in the pickle.

        What is not contiguous goes through the pickle.
        """
        try:
            self.write(buffer.raw())
        except BufferError:
            return True
        return False


class _Pickler(pickle.Pickler):
    """Refers to code by identity and refuses what belongs to this process."""

    def reducer_override(self, value: Any) -> Any:
        if value is int:
            return NotImplemented  # by name, since it stands for all the others
        if isinstance(
            value,
            (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType, types.CodeType),
        ):
            return int, (id(value),)
        if (what := bound_to_process(value)) is not None:
            raise Bound(what, value)
        return NotImplemented


class _LonePickler(_Pickler):
    """Refuses what is nothing but itself."""

    def reducer_override(self, value: Any) -> Any:
        if type(value) is object:
            raise Bound("an object() that is told by its identity", value)
        return super().reducer_override(value)


class _NamePickler(_Pickler):
    """Refers to code by name."""

    def reducer_override(self, value: Any) -> Any:
        if value is not str and isinstance(
            value, (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)
        ):
            # What wraps a function has its name, too
            line = value.__code__.co_firstlineno if isinstance(value, types.FunctionType) else ""
            return str, (
                f"{getattr(value, '__module__', '')}."
                f"{getattr(value, '__qualname__', value.__name__)}{line}",
            )
        return NotImplemented if value is str else super().reducer_override(value)


def bound_to_process(value: object) -> str | None:
    """What `value` is, with its article, when it belongs to this process; else None.

    Example:
        >>> import threading
        >>> bound_to_process(threading.Lock())
        'a lock'
    """
    kind = type(value)
    if isinstance(value, io.IOBase):
        return None if isinstance(value, (io.BytesIO, io.StringIO)) else "an open file"
    if kind.__module__ in ("_thread", "threading", "multiprocessing.synchronize", "asyncio.locks"):
        return (
            None
            if kind.__name__ == "_local"
            else "a lock"
            if "ock" in kind.__name__
            else f"a {kind.__name__}"
        )
    if kind.__module__ in ("socket", "_socket", "ssl"):
        return "a socket"
    if kind.__module__ == "sqlite3":
        return f"a database {kind.__name__.lower()}"
    if kind.__module__.startswith("h5py.") and hasattr(value, "id"):
        return f"an open HDF5 {kind.__name__.lower()}"
    if hasattr(kind, "run_until_complete"):
        return "an event loop"
    if kind.__module__ in ("tkinter", "_tkinter"):
        return "a window"
    if isinstance(value, (types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType)):
        return "a generator"
    return None


def is_bound_to_thread(value: Any) -> bool:
    """Whether what is bound to this process can be used in this thread only.

    Example:
        >>> import sqlite3
        >>> [
        ...     is_bound_to_thread(sqlite3.connect(":memory:", check_same_thread=check))
        ...     for check in (True, False)
        ... ]
        [True, False]
    """
    kind = type(value)
    if isinstance(value, types.GeneratorType):
        return True  # two threads at once are an error
    if kind.__module__ != "sqlite3":
        return hasattr(kind, "run_until_complete") or kind.__module__ in ("tkinter", "_tkinter")
    refused: list[BaseException] = []

    def ask() -> None:
        try:
            # The connection of a cursor, or the connection itself: it tells only when it is used
            getattr(value, "connection", value).cursor()
        except Exception as error:
            refused.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return bool(refused)
