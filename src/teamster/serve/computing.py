# SPDX-License-Identifier: BSD-3-Clause
"""A batch of requests, and how a replica computes it, wherever that is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter_ns
from typing import Any

from teamster.serve.model import Compute, Model
from teamster.serve.request import Reply, Request

Outcome = Reply | BaseException


class RequestBatch:
    """Requests that are computed at a time.

    Attributes:
        requests: of it.
        rows: of all of them.
        busy: replicas that compute when it begins, its own included.
        outcomes: an answer or an error of each, when it is done.
        failure: why there is no replica; None where there is.
        told: called with it when it is done, in place of the scheduler; None for that.
        number: in the order in which they are begun; 0 for one that no request is in.
        held_ns: how long it was held back for more requests.
        delay_ns: how long its thread was ready while others had the processor.
        whole: whether no part of it was run again.
        seconds: of the computation, without the encoding.
    """

    __slots__ = (
        "busy",
        "delay_ns",
        "failure",
        "held_ns",
        "number",
        "outcomes",
        "requests",
        "rows",
        "seconds",
        "told",
        "whole",
    )

    def __init__(self, requests: list[Request], rows: int, busy: int) -> None:
        self.requests, self.rows, self.busy = requests, rows, busy
        self.outcomes: list[Outcome] = []
        self.failure: BaseException | None = None
        self.told: Callable[[RequestBatch], None] | None = None
        self.whole = True
        self.seconds = 0.0
        self.number = self.held_ns = self.delay_ns = 0

    def fail(self, error: BaseException) -> None:
        """Nothing could be computed."""
        self.failure, self.whole = error, False
        self.outcomes = [error] * len(self.requests)


def compute(
    model: Model, replica: Compute, batch: RequestBatch, *, idempotent: bool = True
) -> None:
    """Have a replica compute a batch, and the answers encoded.

    An error of a batch is the error of the one input that it comes from: halves are tried alone.

    Args:
        model: of the replica.
        replica: gives as many outputs as it is given inputs.
        batch: that has its outcomes then.
        idempotent: whether an input may be computed once more; else all inputs of a batch share its
            error.
    """
    requests = batch.requests
    began = perf_counter_ns()
    values = [_prepared(model, request.value) for request in requests]
    good = [each for each in values if not isinstance(each, _Failed)]
    outputs = iter(_halving(replica, good, batch, idempotent) if good else ())
    found = [each if isinstance(each, _Failed) else next(outputs) for each in values]
    ended = perf_counter_ns()
    for request, output in zip(requests, found, strict=True):
        # Before it is encoded: what is streamed is answered while it is
        request.started_ns, request.computed_ns, request.size = began, ended, len(requests)
        batch.outcomes.append(_encoded(request, output))
        if isinstance(output, Iterator):  # it is computed while it is encoded
            ended = request.computed_ns = perf_counter_ns()
    batch.seconds = (ended - began) / 1e9


def _prepared(model: Model, value: Any) -> Any:
    try:
        return model.prepare(value)
    except Exception as error:
        return _Failed(error)


def _halving(
    replica: Compute, values: list[Any], batch: RequestBatch, idempotent: bool
) -> list[Any]:
    try:
        return replica(values)
    except BaseException as error:  # sys.exit() in a model ends no server
        if len(values) == 1 or not idempotent:
            return [_Failed(error)] * len(values)
    batch.whole = False
    middle = len(values) // 2
    return [
        *_halving(replica, values[:middle], batch, idempotent),
        *_halving(replica, values[middle:], batch, idempotent),
    ]


class _Failed:
    """In place of an output."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _encoded(request: Request, output: Any) -> Outcome:
    if isinstance(output, _Failed):
        return output.error
    try:
        return request.encode(output)
    except Exception as error:
        return error
