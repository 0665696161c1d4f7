# SPDX-License-Identifier: BSD-3-Clause
"""The dialect: tensors of many rows as one input a row, and the outputs as tensors again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from teamster.serve.errors import Malformed, Refused, WrongInput, told, wrong_input
from teamster.serve.exchange import Inputs
from teamster.serve.kinds import is_array, make
from teamster.serve.open_inference.messages import InferRequest, InputTensor
from teamster.serve.open_inference.tensors import (
    Tensor,
    from_memory,
    joined,
    to_array,
    to_list,
    to_tensor,
)
from teamster.serve.request import Reply

_HEADER = "inference-header-content-length"
_OUTPUT = "output"  # the name of a model's only one
VERSION = "1"  # of each model


class Rows:
    """Reads and writes the protocol for one model.

    Args:
        name: of the model.
        batches: whether the first dimension of a tensor counts rows, which are computed in batches;
            else a tensor is one input.
        kind: of an input, by the model's annotations.

    Attributes:
        outputs: described, from the first answer on.
    """

    def __init__(self, name: str, batches: bool, kind: Any) -> None:
        self._name, self._batches, self._kind = name, batches, kind
        self.outputs: list[dict[str, Any]] = []
        self._decoder = msgspec.json.Decoder(InferRequest)

    def read(self, body: bytes, headers: Mapping[str, str]) -> Inputs:
        """The inputs of a body, a row each.

        Args:
            body: JSON, and the memory of tensors after it.
            headers: of the request, names in lower case.

        Raises:
            Malformed: it is not what the protocol says.
            WrongInput: the model does not take it.
        """
        size = headers.get(_HEADER, "")
        if size and not (size.isdecimal() and int(size) <= len(body)):
            raise Malformed(f"{_HEADER}: {size}, and the body has {len(body)} bytes")
        header = body[: int(size)] if size else body
        try:
            asked = self._decoder.decode(header)
        except msgspec.ValidationError as error:
            raise wrong_input(error) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Malformed(str(error) or "it is nested too deeply") from None
        columns = _columns(asked, memoryview(body)[len(header) :])
        return Inputs([self._typed(each) for each in self._split(columns)], pack, asked)

    def _split(self, columns: dict[str, Any]) -> list[Any]:
        if not self._batches:
            return [_alone(columns)]
        if any(not each.ndim for each in columns.values()):
            raise WrongInput("the first dimension of a tensor is that of the batch", "$.inputs")
        counts = {len(each) for each in columns.values()}
        if len(counts) > 1:
            raise WrongInput(f"inputs of {sorted(counts)} rows", "$.inputs")
        (count,) = counts
        if not count:
            raise WrongInput("there are no rows", "$.inputs[0].shape")
        return [_alone({name: each[row] for name, each in columns.items()}) for row in range(count)]

    def _typed(self, value: Any) -> Any:
        if self._kind is Any:
            return value
        given = value if is_array(self._kind) else _plain(value)
        try:
            return msgspec.convert(given, self._kind, dec_hook=make)
        except msgspec.ValidationError as error:
            raise wrong_input(error) from None

    def write(self, inputs: Inputs, replies: list[Reply]) -> Reply:
        """The answer.

        Args:
            inputs: of `read`.
            replies: of `pack`, one a row.
        """
        rows = [_unpacked(each.body) for each in replies]
        try:
            outputs = {
                name: joined([row[name] for row in rows]) if self._batches else _whole(tensor)
                for name, tensor in rows[0].items()
            }
        except (TypeError, KeyError) as error:
            return self.told(error)
        if not self.outputs:
            self.outputs = [self.described(name, each) for name, each in rows[0].items()]
        return _answer(self._name, inputs.asked, outputs)

    def described(self, name: str, row: Tensor) -> dict[str, Any]:
        """A tensor for the model's metadata, with any number of rows.

        Args:
            name: of it.
            row: one of them.
        """
        shape = [-1, *row.shape] if self._batches else [*row.shape]
        return {"name": name, "datatype": row.datatype, "shape": shape}

    @staticmethod
    def told(error: BaseException) -> Reply:
        """An error, as the protocol writes it: a text."""
        where = f" (at {error.where})" if isinstance(error, Refused) and error.where else ""
        kind = "" if isinstance(error, Refused) else f"{type(error).__name__}: "
        answer = told(error)
        return answer._replace(body=msgspec.json.encode({"error": f"{kind}{error}{where}"}))


def _columns(asked: InferRequest, memory: memoryview) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    at = 0
    for index, each in enumerate(asked.inputs):
        where = f"$.inputs[{index}]"
        if each.name in columns:
            raise WrongInput(f"two inputs are named {each.name}", where)
        size = each.parameters.get("binary_data_size")
        if size is None:
            columns[each.name] = to_array(each.datatype, each.shape, _data(each, where), where)
            continue
        if not isinstance(size, int) or size < 0 or at + size > len(memory):
            raise Malformed(f"binary_data_size: {size}, of {len(memory) - at} bytes left", where)
        tensor = Tensor(each.datatype, tuple(each.shape), bytes(memory[at : at + size]))
        columns[each.name] = from_memory(tensor, where)
        at += size
    if at < len(memory):
        raise Malformed(f"{len(memory) - at} bytes after the last tensor")
    return columns


def _data(tensor: InputTensor, where: str) -> Any:
    if "shared_memory_region" in tensor.parameters:
        raise WrongInput("shared memory is not read: send the data", where)
    if tensor.data is None:
        raise WrongInput("it has neither data nor binary_data_size", where)
    return tensor.data


def _alone(columns: dict[str, Any]) -> Any:
    """The only input without its name; a number or a text without its array."""
    if len(columns) > 1:
        return columns
    (value,) = columns.values()
    return value if getattr(value, "ndim", 0) else _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return value.tolist() if hasattr(value, "tolist") else value


def pack(output: Any) -> Reply:
    """An output as tensors; called where it was computed.

    Args:
        output: of one row: what `to_tensor` takes, a dict of these by name, or a tuple.
    """
    if isinstance(output, dict):
        parts = {str(name): each for name, each in output.items()}
    elif isinstance(output, tuple):
        parts = {f"{_OUTPUT}_{index}": each for index, each in enumerate(output)}
    else:
        parts = {_OUTPUT: output}
    tensors = {name: to_tensor(each) for name, each in parts.items()}
    return Reply(200, msgspec.msgpack.encode(tensors))


def _unpacked(body: bytes) -> dict[str, Tensor]:
    return msgspec.msgpack.decode(body, type=dict[str, Tensor])


def _whole(tensor: Tensor) -> Tensor:
    return tensor if tensor.shape else tensor._replace(shape=(1,))


def _answer(model: str, asked: InferRequest, outputs: Mapping[str, Tensor]) -> Reply:
    missing = [each.name for each in asked.outputs if each.name not in outputs]
    if missing:
        known = ", ".join(outputs)
        raise WrongInput(f"there is no output {missing[0]}; there are: {known}", "$.outputs")
    by_default = bool(asked.parameters.get("binary_data_output"))
    wanted = [
        (each.name, bool(each.parameters.get("binary_data", by_default))) for each in asked.outputs
    ] or [(name, by_default) for name in outputs]
    written = [_written(name, outputs[name], as_memory) for name, as_memory in wanted]
    body: dict[str, Any] = {"model_name": model, "model_version": VERSION}
    if asked.id:
        body["id"] = asked.id
    header = msgspec.json.encode({**body, "outputs": written})
    memory = [outputs[name].data for name, as_memory in wanted if as_memory]
    if not memory:
        return Reply(200, header)
    length = (_HEADER.encode(), b"%d" % len(header))
    return Reply(200, b"".join([header, *memory]), b"application/octet-stream", (length,))


def _written(name: str, tensor: Tensor, as_memory: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "datatype": tensor.datatype, "shape": tensor.shape}
    if as_memory:
        return {**found, "parameters": {"binary_data_size": len(tensor.data)}}
    return {**found, "data": to_list(tensor)}
