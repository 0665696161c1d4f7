# SPDX-License-Identifier: BSD-3-Clause
"""The protocol's objects, as msgspec reads them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

Parameters = dict[str, Any]
Size = Annotated[int, msgspec.Meta(ge=0)]


class InputTensor(msgspec.Struct):
    """A tensor of a request.

    Attributes:
        name: of the model's input.
        shape: of it.
        datatype: as ``FP32``.
        parameters: ``binary_data_size``, where its memory comes after the JSON.
        data: where not.
    """

    name: str
    shape: list[Size]
    datatype: str
    parameters: Parameters = {}
    data: Any = None


class OutputRequest(msgspec.Struct):
    """An output that is asked for.

    Attributes:
        name: of it.
        parameters: ``binary_data``.
    """

    name: str
    parameters: Parameters = {}


class InferRequest(msgspec.Struct):
    """A request.

    Attributes:
        inputs: at least one.
        id: that comes back with the answer.
        parameters: ``binary_data_output``.
        outputs: that are asked for; all, where there are none.
    """

    inputs: Annotated[list[InputTensor], msgspec.Meta(min_length=1)]
    id: str = ""
    parameters: Parameters = {}
    outputs: list[OutputRequest] = []
