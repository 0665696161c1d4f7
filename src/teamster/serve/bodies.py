# SPDX-License-Identifier: BSD-3-Clause
"""Inputs out of bodies, and bodies out of outputs, by their content types.

::

    application/json              any shape          NumPy's and torch's as nested lists
    application/msgpack           the same
    application/octet-stream      one tensor         type and shape in headers x-dtype, x-shape
    text/plain, image/*, audio/*  bytes or a text    for models that take one
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from teamster.serve.errors import Malformed, UnknownType, WrongInput, told, wrong_input
from teamster.serve.exchange import Inputs
from teamster.serve.kinds import make
from teamster.serve.request import Reply
from teamster.serve.streaming import Whole, form_of

JSON, MSGPACK, RAW = "application/json", "application/msgpack", "application/octet-stream"
_ANYTHING = "", "*/*", JSON  # what nearly all clients say: read without a search
_MSGPACK_NAMES = (MSGPACK, "application/x-msgpack", "application/vnd.msgpack")


class Bodies:
    """Decodes inputs of one type, and encodes outputs.

    Args:
        kind: of an input, as annotations say it: a dataclass, a msgspec struct, ``list[float]``, an
            array, a model of pydantic; Any for whatever the body holds.

    Example:
        >>> bodies = Bodies(list[float])
        >>> bodies.decode(b"[1, 2.5]", "application/json", {})
        [1.0, 2.5]
        >>> bodies.decode(b'[1, "x"]', "application/json", {})
        Traceback (most recent call last):
            ...
        teamster.serve.errors.WrongInput: Expected `float`, got `str`
    """

    def __init__(self, kind: Any = Any) -> None:
        self.kind = kind
        self._json = msgspec.json.Decoder(kind, dec_hook=make)
        self._msgpack = msgspec.msgpack.Decoder(kind, dec_hook=make)

    def read(self, body: bytes, headers: Mapping[str, str]) -> Inputs:
        """The one input of a body, and how its output is encoded.

        Args:
            body: whole.
            headers: of the request, names in lower case.

        Raises:
            Malformed, WrongInput, UnknownType: as `decode`.
        """
        content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        value = self.decode(body, content_type, headers)
        accept = headers.get("accept", "")
        if accept in _ANYTHING:
            return Inputs([value], _as_json)
        form = form_of(accept)
        if form is not None:
            return Inputs([value], Whole(form, to_json), form=form)
        return Inputs([value], encoder_for(accept))

    @staticmethod
    def write(inputs: Inputs, replies: list[Reply]) -> Reply:
        """The answer to it."""
        return replies[0]

    told = staticmethod(told)

    def decode(self, body: bytes, content_type: str, headers: Mapping[str, str]) -> Any:
        """The input.

        Args:
            body: whole.
            content_type: without its parameters; empty for JSON.
            headers: of the request, for the type and shape of a raw tensor.

        Raises:
            Malformed: it is not what its type says.
            WrongInput: it is, and not of the kind.
            UnknownType: there is no decoder.
        """
        if not content_type or content_type == JSON or content_type.endswith("+json"):
            return self._decoded(self._json.decode, body)
        if content_type in _MSGPACK_NAMES:
            return self._decoded(self._msgpack.decode, body)
        if content_type == RAW:
            return _tensor(body, headers)
        if content_type.startswith(("image/", "audio/", "video/")):
            return body
        if content_type.startswith("text/"):
            try:
                return body.decode()
            except UnicodeDecodeError as error:
                raise Malformed(f"the text is not UTF-8: {error.reason}") from error
        if content_type == "application/x-www-form-urlencoded":  # curl's, where none was named
            return self._decoded(self._json.decode, body)
        raise UnknownType(f"no decoder for {content_type}: send {JSON}, {MSGPACK} or {RAW}")

    def _decoded(self, decode: Callable[[bytes], Any], body: bytes) -> Any:
        if not body:
            raise Malformed("the body is empty")
        try:
            return decode(body)
        except msgspec.ValidationError as error:
            raise wrong_input(error) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Malformed(str(error)) from None
        except RecursionError:
            raise Malformed("it is nested too deeply") from None


def encoder_for(accept: str) -> Callable[[Any], Reply]:
    """What makes an answer of an output, as the client asks for it.

    Args:
        accept: the header; JSON where it names nothing that is known.

    Example:
        >>> encoder_for("*/*")([1, 2.5]).body
        b'[1,2.5]'
    """
    if RAW in accept:
        return _raw
    if any(name in accept for name in _MSGPACK_NAMES):
        return _as_msgpack
    return _as_json


def _as_json(output: Any) -> Reply:
    if isinstance(output, Reply):
        return output
    return Reply(200, to_json(output))


def to_json(output: Any) -> bytes:
    """An output as JSON.

    Raises:
        TypeError: it has no such form.

    Example:
        >>> to_json(each for each in "ab")
        b'["a","b"]'
    """
    return msgspec.json.encode(output, enc_hook=_plain)


def _as_msgpack(output: Any) -> Reply:
    return Reply(200, msgspec.msgpack.encode(output, enc_hook=_plain), MSGPACK.encode())


def _raw(output: Any) -> Reply:
    """The memory of a tensor or array; anything else as JSON."""
    array = output.detach().cpu().numpy() if _is_tensor(output) else output
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(array, (numpy.ndarray, numpy.generic)):
        return _as_json(output)
    array = numpy.ascontiguousarray(array)
    shape = ",".join(map(str, array.shape))
    headers = ((b"x-dtype", array.dtype.name.encode()), (b"x-shape", shape.encode()))
    return Reply(200, array.tobytes(), RAW.encode(), headers)


def _plain(value: Any) -> Any:
    """What msgspec does not know: tensors, arrays and their numbers."""
    if _is_tensor(value):
        return value.detach().tolist()
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "model_dump"):  # pydantic's
        return value.model_dump()
    if isinstance(value, Iterator):
        return list(value)
    raise TypeError(f"the model has returned {type(value).__name__}, which has no form in JSON")


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _tensor(body: bytes, headers: Mapping[str, str]) -> Any:
    """An array over the body's own memory."""
    import numpy

    name = headers.get("x-dtype", "float32")
    try:
        dtype = numpy.dtype(name)
        if dtype.hasobject:
            raise TypeError
        shape = [int(each) for each in headers.get("x-shape", "-1").split(",") if each.strip()]
        return numpy.frombuffer(body, dtype).reshape(shape)
    except TypeError:
        raise WrongInput(f"x-dtype: there is no type {name!r}") from None
    except ValueError as error:
        raise WrongInput(f"x-shape: {error}") from None
