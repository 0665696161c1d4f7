# SPDX-License-Identifier: BSD-3-Clause
"""`Server`: the class that a user holds; what it does stands in its neighbours.

::

    bytes --> application --> endpoint: bodies --> scheduler --> replica: model --> bodies --> bytes
              paths, limits             decode     waiting,      threads             encode
                                                   cost
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Literal

from teamster.errors import UsageError
from teamster.serve.application import Application
from teamster.serve.endpoint import Endpoint, Options
from teamster.serve.model import Model
from teamster.serve.running import Background, listen, run, url_of
from teamster.spine.plan.choice import is_count
from teamster.spine.plan.plan import Plan

_log = logging.getLogger("teamster.serve")
_MOST_BYTES = 16_000_000  # of a body: an image or a document, and no film


class Server:
    """Serves a model behind HTTP, or several, and finds out how by itself.

    Args:
        model: a torch module, an estimator of scikit-learn's kind, any callable, an object or a
            class with ``predict`` (made anew in each replica, with ``setup`` where it has that);
            or a dict of these by name, each under its own path.
        p99: seconds in which an answer is promised: a request that cannot have it is refused at
            once, with status 429.
        workers: replicas; None for one a core, of which as many are used as pay.
        kind: "thread" for replicas that share the weights; "process" for code that holds the
            interpreter's lock, or may crash; "auto" for what answers more of the example (the event
            loop itself, where that is cheap), and for threads where there is none.
        batched: whether a callable takes a list of inputs and returns as many outputs; modules and
            estimators do.
        max_batch: rows of a batch.
        max_body: bytes of a request.
        max_waiting: requests that may wait.
        token: that clients bring as ``Authorization: Bearer``; None for no such.
        idempotent: whether an input may be computed once more, where its replica has died or
            another input of its batch has failed.
        example: an input, as JSON gives it, to measure with before the first request.

    Attributes:
        app: an ASGI application; it can be mounted into others, and called in tests.

    Raises:
        UsageError: a model cannot be served, or a number is out of its range.

    Example:
        >>> import json, urllib.request
        >>> with Server(lambda x: 2 * x).start() as running:
        ...     answer = urllib.request.urlopen(running.url + "/predict", b"21")
        ...     json.load(answer)
        42
    """

    def __init__(
        self,
        model: Any,
        *,
        p99: float | None = None,
        workers: int | None = None,
        kind: Literal["auto", "thread", "process"] = "auto",
        batched: bool | None = None,
        max_batch: int = 32,
        max_body: int = _MOST_BYTES,
        max_waiting: int = 10_000,
        token: str | None = None,
        idempotent: bool = True,
        example: Any = None,
    ) -> None:
        _check(p99, kind)
        _check_counts(
            workers=1 if workers is None else workers,
            max_batch=max_batch,
            max_body=max_body,
            max_waiting=max_waiting,
        )
        options = Options(p99, workers, kind, idempotent, max_batch, max_waiting, example)
        models = model if isinstance(model, Mapping) else {"": model}
        if not models:
            raise UsageError("there is no model to serve: the dict is empty")
        self._endpoints = {
            f"/{name}/predict" if name else "/predict": _endpoint(name, each, batched, options)
            for name, each in models.items()
        }
        self.app = Application(self._endpoints, max_body, token)

    @property
    def plan(self) -> Plan:
        """How the first model is served, and why.

        Example:
            >>> print(Server(abs, workers=2).plan)
            thread(2): a thread each, which share the weights
        """
        return next(iter(self._endpoints.values())).plan

    def run(
        self,
        host: str = "127.0.0.1",
        port: int = 8000,
        *,
        ready: Callable[[str], object] = _log.info,
        **options: Any,
    ) -> None:
        """Serve until SIGTERM or SIGINT: all that were let in have their answers then.

        Args:
            host: "0.0.0.0" for all interfaces.
            port: 0 for any that is free.
            ready: told where it is, and how, when it takes requests.
            **options: of uvicorn's `Config`, as ``ssl_keyfile``.

        Raises:
            UsageError: the port is taken.
        """
        listening = listen(host, port)
        place = url_of(listening)

        def told() -> None:
            for path, each in self._endpoints.items():
                ready(f"{each.name} on {place}{path}, {each.plan}")

        run(self.app, listening, told, **options)

    def start(self, host: str = "127.0.0.1", port: int = 0, **options: Any) -> Background:
        """Serve in a thread, as in a notebook or a test.

        Args:
            host: as of `run`.
            port: 0 for any that is free.
            **options: as of `run`.

        Returns:
            A context manager with `url` and `close`.

        Raises:
            UsageError: the port is taken, or a model cannot be made ready.
        """
        return Background(self.app, listen(host, port), **options)


def _endpoint(name: str, model: Any, batched: bool | None, options: Options) -> Endpoint:
    made = Model(model, batched)
    return Endpoint(name or made.name, made, options)


def _check(p99: Any, kind: Any) -> None:
    if p99 is not None and not (isinstance(p99, (int, float)) and p99 > 0):
        raise UsageError(f"p99= is a number of seconds above 0, or None; not {p99!r}")
    if kind not in ("auto", "thread", "process"):
        raise UsageError(f"kind= must be 'auto', 'thread' or 'process'; not {kind!r}")


def _check_counts(**counts: Any) -> None:
    for name, value in counts.items():
        if not is_count(value, 1):
            raise UsageError(f"{name}= must be a whole number of 1 or more; not {value!r}")
