# SPDX-License-Identifier: BSD-3-Clause
"""Lists of millions of small objects in two buffers, which processes share.

A Python object has a count of its references, which every look at it writes: of a list of paths,
each worker process comes to have a copy of its own. Two buffers are in memory once for all.
"""

from __future__ import annotations

import pickle
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, islice
from typing import Any, Literal, TypeVar, overload

from teamster.errors import UsageError
from teamster.units import show_bytes

Value = TypeVar("Value")
Kind = Literal["str", "bytes", "object"]

_LARGE_BYTES = 64 << 20  # of a process's own copy: worth a line
_LOOKED_AT = 1_000  # values, for an estimate of what all take
_POINTER_BYTES = 8  # of a place in a list


def pack(values: Iterable[Value]) -> Packed[Value]:
    """Keep many small values in two buffers, in the place of a list.

    Args:
        values: text, bytes, or anything that pickles: what is got of it is equal, and a new object
            each time.

    Returns:
        A sequence; indices, slices, iteration, `len`, `in` and `==` are those of a list.

    Raises:
        UsageError: a value does not pickle.

    Example:
        >>> paths = pack(f"images/{number}.jpg" for number in range(3))
        >>> len(paths), paths[-1], paths[:2]
        (3, 'images/2.jpg', ['images/0.jpg', 'images/1.jpg'])
        >>> pack([{"file": "a.jpg", "label": 3}])[0]["label"]
        3
    """
    several: Any = values if isinstance(values, (list, tuple)) else list(values)
    kinds = set(map(type, several))
    if kinds <= {str}:
        return _packed("str", (text.encode("utf-8", "surrogatepass") for text in several))
    if kinds <= {bytes}:
        return _packed("bytes", several)
    return _packed("object", map(_dumped, several, range(len(several))))


def _dumped(value: object, index: int) -> bytes:
    try:
        return pickle.dumps(value, 5)
    except Exception as error:
        raise UsageError(f"pack: value {index} does not pickle: {error}") from error


def _packed(kind: Kind, pieces: Iterable[bytes]) -> Packed[Any]:
    data, lengths = bytearray(), array("q", [0])
    for piece in pieces:
        data += piece
        lengths.append(len(piece))
    return Packed(kind, data, array("q", accumulate(lengths)))


class Packed(Sequence[Value]):
    """What `pack` makes.

    Args:
        kind: of the values.
        data: all of them, one behind the other.
        ends: where each begins, and where the last one ends: an array of integers of 8 bytes, or
            those bytes.

    Example:
        >>> Packed("str", b"onetwo", array("q", [0, 3, 6]))[1]
        'two'
    """

    __slots__ = ("_data", "_ends", "_kind", "_open")

    def __init__(self, kind: Kind, data: Any, ends: Any) -> None:
        self._kind: Kind = kind
        self._data = data if type(data) in (bytes, bytearray) else memoryview(data).cast("B")
        self._ends = ends if type(ends) is array else memoryview(ends).cast("B").cast("q")
        self._open: Callable[[Any], Any] = _OPEN[kind]

    @property
    def nbytes(self) -> int:
        """Of both buffers."""
        return len(self._data) + len(self._ends) * self._ends.itemsize

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> Value: ...
    @overload
    def __getitem__(self, index: slice) -> list[Value]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        number = index.__index__()
        if number < 0:
            number += len(self)
        if not 0 <= number < len(self):
            raise IndexError(f"index {index} of {len(self):,} packed values")
        return self._open(self._data[self._ends[number] : self._ends[number + 1]])

    def __iter__(self) -> Iterator[Value]:
        begin, data, open_ = 0, self._data, self._open
        for end in islice(self._ends, 1, None):
            yield open_(data[begin:end])
            begin = end

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (Packed, list)):
            return NotImplemented
        return len(self) == len(other) and all(map(_are_equal, self, other))

    __hash__ = None  # type: ignore[assignment]  # as a list

    def __reduce_ex__(self, protocol: Any) -> Any:
        buffers = self._data, self._ends
        # A buffer of a view of a buffer can crash the collector of Python 3.11 (gh-77894)
        copied = protocol < 5 or type(self._data) is memoryview
        return Packed, (self._kind, *map(bytes if copied else pickle.PickleBuffer, buffers))

    def __repr__(self) -> str:
        shown = ", ".join(repr(value) for value in islice(self, 3))
        more = ", ..." if len(self) > 3 else ""
        return f"pack([{shown}{more}])"


def _are_equal(one: object, other: object) -> bool:
    return one is other or bool(one == other)


_OPEN: dict[Kind, Callable[[Any], Any]] = {
    "str": lambda piece: str(piece, "utf-8", "surrogatepass"),
    "bytes": bytes,
    "object": pickle.loads,
}


def costs(dataset: Any, workers: int) -> str:
    """What a dataset's lists of Python objects take in each process, and what helps.

    Args:
        dataset: its attributes are looked at, and those of the dataset that it wraps.
        workers: how many processes have it.

    Returns:
        A sentence; empty where that is little.

    Example:
        >>> costs([1, 2, 3], 2)
        ''
    """
    own = getattr(dataset, "__dict__", None)
    own = own if isinstance(own, dict) else {}
    for name, value in own.items():
        if type(value) not in (list, tuple, dict) or len(value) < _LOOKED_AT:
            continue
        nbytes = _estimate(value)
        if nbytes * workers < _LARGE_BYTES:
            continue
        help_ = (
            f"; teamster.data.pack(dataset.{name}) is in memory once for all of them"
            if type(value) is not dict
            else ""
        )
        return (
            f"the {len(value):,} objects in dataset.{name} take {show_bytes(nbytes)} in each of "
            f"{workers} processes{help_}"
        )
    inner = own.get("dataset")
    return costs(inner, workers) if inner is not None and inner is not dataset else ""


def _estimate(values: Any) -> int:
    """Bytes of a large container and its values, one level of them looked into."""
    looked = list(islice(values.items() if isinstance(values, dict) else values, _LOOKED_AT))
    return len(values) * (_POINTER_BYTES + sum(map(_size_of, looked)) // len(looked))


def _size_of(value: Any) -> int:
    inner = value.values() if type(value) is dict else value
    inside = inner if type(inner) in (list, tuple) or type(value) is dict else ()
    return sys.getsizeof(value) + sum(map(sys.getsizeof, inside))
