# SPDX-License-Identifier: BSD-3-Clause
"""Paths of the protocol.

::

    GET  /v2                                              the server
    GET  /v2/health/live, /v2/health/ready
    POST /v2/repository/index                             models, and whether they are ready
    GET  /v2/models/NAME[/versions/1]                     inputs and outputs, as far as known
    GET  /v2/models/NAME[/versions/1]/ready
    POST /v2/models/NAME[/versions/1]/infer
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import Any, NamedTuple

import msgspec

from teamster.serve.endpoint import Endpoint
from teamster.serve.errors import NotFound, Refused, WrongMethod
from teamster.serve.open_inference.rows import VERSION, Rows
from teamster.serve.open_inference.tensors import to_tensor
from teamster.serve.request import Reply

ROOT = "/v2"
_EXTENSIONS = ["binary_tensor_data", "model_repository"]
_JSON = b"application/json"


class Infer(NamedTuple):
    """A path that computes.

    Attributes:
        endpoint: of the model.
        rows: the dialect of its bodies.
    """

    endpoint: Endpoint
    rows: Rows


class Routes:
    """Finds what a path is for.

    Args:
        endpoints: of the server.
        version: of it.
    """

    def __init__(self, endpoints: Iterable[Endpoint], version: str) -> None:
        self._models = {
            each.name: Infer(each, Rows(each.name, each.batches, each.input_kind))
            for each in endpoints
        }
        self._version = version
        self._has_numpy = find_spec("numpy") is not None
        self._pages: dict[str, tuple[str, Callable[[], Reply]]] = {
            "": ("GET", self._server),
            "/health/live": ("GET", lambda: _json({"live": True})),
            "/health/ready": ("GET", self._ready),
            "/repository/index": ("POST", self._index),
        }

    def find(self, path: str, method: str) -> Reply | Infer:
        """A page, or where to compute.

        Args:
            path: that begins with `ROOT`.
            method: of HTTP.

        Raises:
            NotFound, WrongMethod: there is no such path; it is for another method.
        """
        rest = path[len(ROOT) :].rstrip("/")
        page = self._pages.get(rest)
        if page is not None:
            _check(method, page[0])
            return page[1]()
        _, kind, name, *more = [*rest.split("/"), "", ""][:7]
        more = [each for each in more if each]
        model = self._models.get(name) if kind == "models" else None
        if model is None:
            raise NotFound(f"there is nothing under {path}; models: {', '.join(self._models)}")
        if more[:1] == ["versions"]:
            if more[1:2] != [VERSION]:
                raise NotFound(f"{name} has the version {VERSION} only")
            more = more[2:]
        return self._of_model(model, "/".join(more), method)

    def _of_model(self, model: Infer, what: str, method: str) -> Reply | Infer:
        name = model.endpoint.name
        if what == "infer":
            _check(method, "POST")
            if not self._has_numpy:
                raise NotFound("the protocol needs NumPy on the server, and it is not installed")
            return model
        if what not in ("", "ready"):
            raise NotFound(f"there is no {what} of {name}: infer, ready, or nothing")
        _check(method, "GET")
        if what == "ready":
            ready = model.endpoint.is_ready
            return _json({"name": name, "ready": ready}, 200 if ready else 503)
        return _json(
            {
                "name": name,
                "versions": [VERSION],
                "platform": "teamster",
                "inputs": _inputs(model),
                "outputs": model.rows.outputs,
            }
        )

    def _server(self) -> Reply:
        return _json({"name": "teamster", "version": self._version, "extensions": _EXTENSIONS})

    def _ready(self) -> Reply:
        ready = all(each.endpoint.is_ready for each in self._models.values())
        return _json({"ready": ready}, 200 if ready else 503)

    def _index(self) -> Reply:
        return _json(
            [
                {
                    "name": name,
                    "version": VERSION,
                    "state": "READY" if each.endpoint.is_ready else "UNAVAILABLE",
                    "reason": "",
                }
                for name, each in self._models.items()
            ]
        )

    @staticmethod
    def told(error: Refused) -> Reply:
        """An error, as the protocol writes it."""
        return Rows.told(error)


def _inputs(model: Infer) -> list[dict[str, Any]]:
    """As the example is; nothing where there is none."""
    example = model.endpoint.example
    if example is None:
        return []
    columns = example if isinstance(example, dict) else {"input": example}
    try:
        tensors = {name: to_tensor(each) for name, each in columns.items()}
    except TypeError:
        return []
    return [model.rows.described(name, each) for name, each in tensors.items()]


def _check(method: str, allowed: str) -> None:
    if method != allowed and (method, allowed) != ("HEAD", "GET"):
        raise WrongMethod(f"this path is for {allowed}")


def _json(value: Any, status: int = 200) -> Reply:
    return Reply(status, msgspec.json.encode(value), _JSON)
