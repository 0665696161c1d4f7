# SPDX-License-Identifier: BSD-3-Clause
"""Tensors as the protocol writes them: as lists in JSON, or as their memory after it."""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from teamster.serve.errors import Malformed, WrongInput

BYTES = "BYTES"
_BF16 = "BF16"  # NumPy has no such type: it is the upper half of a float32
# Names of the protocol, and NumPy's, in the byte order of the protocol
_TYPES = {
    "BOOL": "|b1",
    "UINT8": "|u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "|i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
_NAMES = {type_[1:]: name for name, type_ in _TYPES.items()}
_LENGTH = struct.Struct("<I")  # before each element of BYTES


class Tensor(NamedTuple):
    """A tensor without NumPy: what is sent, and what replicas answer.

    Attributes:
        datatype: of the protocol.
        shape: of it.
        data: its memory, little-endian, row after row; of BYTES each element with its length.
    """

    datatype: str
    shape: tuple[int, ...]
    data: bytes


def to_array(datatype: str, shape: Sequence[int], data: Any, where: str) -> Any:
    """An array of the elements that JSON holds.

    Args:
        datatype: of the protocol.
        shape: of it.
        data: a list of any depth.
        where: it is, for errors.

    Raises:
        WrongInput: they are of another type, or of another number.
    """
    import numpy

    flat = _flat(data)
    if len(flat) != math.prod(shape):
        raise WrongInput(f"{len(flat)} elements, and a shape of {list(shape)}", where)
    if datatype == BYTES:
        if not all(isinstance(each, str) for each in flat):
            raise WrongInput("elements of BYTES are texts in JSON", where)
        return _objects(flat).reshape(shape)
    try:
        name = "FP32" if datatype == _BF16 else datatype
        found = numpy.array(flat, dtype=_TYPES[name]) if flat else numpy.zeros(0, _TYPES[name])
    except KeyError:
        raise WrongInput(f"there is no datatype {datatype}", where) from None
    except (ValueError, TypeError, OverflowError) as error:
        raise WrongInput(f"no {datatype}: {error}", where) from None
    return found.reshape(shape)


def _flat(data: Any) -> list[Any]:
    if not isinstance(data, list):
        return [data]
    while data and isinstance(data[0], list):
        if not all(isinstance(each, list) for each in data):
            break
        data = [each for row in data for each in row]
    found: list[Any] = data
    return found


def from_memory(tensor: Tensor, where: str) -> Any:
    """An array over memory that is sent.

    Args:
        tensor: as it was sent.
        where: it is, for errors.

    Raises:
        WrongInput: there is no such type.
        Malformed: the memory is of another size.
    """
    import numpy

    datatype, shape, data = tensor
    if datatype == BYTES:
        elements = _elements(data, where)
        if len(elements) != math.prod(shape):
            raise Malformed(f"{len(elements)} elements, and a shape of {list(shape)}", where)
        return _objects(elements).reshape(shape)
    type_ = "<u2" if datatype == _BF16 else _TYPES.get(datatype)
    if type_ is None:
        raise WrongInput(f"there is no datatype {datatype}", where)
    size = math.prod(shape) * numpy.dtype(type_).itemsize
    if len(data) != size:
        raise Malformed(f"{len(data)} bytes; {datatype} of {list(shape)} has {size}", where)
    found = numpy.frombuffer(data, type_).reshape(shape)
    if datatype == _BF16:
        return (found.astype("<u4") << 16).view("<f4")
    return found


def _elements(data: bytes, where: str) -> list[bytes]:
    found: list[bytes] = []
    at = 0
    while at < len(data):
        if at + _LENGTH.size > len(data):
            raise Malformed("BYTES ends in the length of an element", where)
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if at + length > len(data):
            raise Malformed("BYTES ends in an element", where)
        found.append(data[at : at + length])
        at += length
    return found


def _objects(elements: Sequence[Any]) -> Any:
    import numpy

    found: Any = numpy.empty(len(elements), dtype=object)
    found[:] = elements
    return found


def to_tensor(output: Any) -> Tensor:
    """What a model has returned, or a part of it.

    Args:
        output: an array, a tensor, a number, a text, bytes, or lists of these.

    Raises:
        TypeError: it has no form as a tensor.

    Example:
        >>> to_tensor([1.5, 2.0]).shape, to_tensor("text").datatype
        ((2,), 'BYTES')
    """
    import numpy

    torch = sys.modules.get("torch")
    if torch is not None and isinstance(output, torch.Tensor):
        output = output.detach().cpu()
        output = (output.float() if output.dtype == torch.bfloat16 else output).numpy()
    if isinstance(output, (str, bytes)):
        return Tensor(BYTES, (), _bytes([output]))
    array = output if isinstance(output, numpy.ndarray) else _as_array(output)
    if array.dtype.kind in "OUS":
        return Tensor(BYTES, array.shape, _bytes(array.ravel().tolist()))
    name = _NAMES.get(array.dtype.str[1:])
    if name is None:
        raise TypeError(f"the protocol has no type for {array.dtype} of NumPy")
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return Tensor(name, array.shape, numpy.ascontiguousarray(little).tobytes())


def _as_array(output: Any) -> Any:
    import numpy

    flat = _flat(output) if isinstance(output, list) else []
    if flat and isinstance(flat[0], (str, bytes)):
        return _objects(flat) if flat is output else numpy.array(output, dtype=object)
    try:
        return numpy.asarray(output)
    except ValueError as error:
        raise TypeError(f"the model has returned lists of several lengths: {error}") from None


def _bytes(elements: Sequence[Any]) -> bytes:
    parts = []
    for each in elements:
        data = each.encode() if isinstance(each, str) else each
        if not isinstance(data, bytes):
            raise TypeError(
                f"the model has returned {type(each).__name__}, which has no form as a tensor"
            )
        parts += [_LENGTH.pack(len(data)), data]
    return b"".join(parts)


def to_list(tensor: Tensor) -> list[Any]:
    """Its elements for JSON, in one list.

    Raises:
        WrongInput: it holds bytes that are no text.
    """
    if tensor.datatype != BYTES:
        import numpy

        elements: list[Any] = numpy.frombuffer(tensor.data, _TYPES[tensor.datatype]).tolist()
        return elements
    try:
        return [each.decode() for each in _elements(tensor.data, "")]
    except UnicodeDecodeError:
        raise WrongInput("an output holds bytes that are no text: ask for binary_data") from None


def joined(rows: Sequence[Tensor]) -> Tensor:
    """One tensor of all rows.

    Raises:
        TypeError: they are of several types or shapes.
    """
    first = rows[0]
    if any(each[:2] != first[:2] for each in rows):
        shapes = sorted({f"{each.datatype} {list(each.shape)}" for each in rows})
        raise TypeError(f"the model has returned rows of several kinds: {', '.join(shapes)}")
    return Tensor(first.datatype, (len(rows), *first.shape), b"".join(each.data for each in rows))
