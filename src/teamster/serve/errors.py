# SPDX-License-Identifier: BSD-3-Clause
"""Errors that a client is told, with their statuses."""

from __future__ import annotations

import msgspec

from teamster.errors import TeamsterError
from teamster.serve.request import Reply


class Refused(TeamsterError):
    """A request that gets no output.

    Args:
        message: for people.
        where: in the input, as ``$.x[3]``; empty where that is no part of it.

    Attributes:
        status: of HTTP.
    """

    status = 400

    def __init__(self, message: str, where: str = "") -> None:
        super().__init__(message)
        self.where = where


class NotFound(Refused):
    """There is nothing under this path."""

    status = 404


class WrongMethod(Refused):
    """The path is for another method."""

    status = 405


class Malformed(Refused):
    """The body is not what its type says."""


class TooLarge(Refused):
    """The body is larger than the limit."""

    status = 413


class UnknownType(Refused):
    """No decoder for the type of the body."""

    status = 415


class WrongInput(Refused):
    """The body was read, and the model does not take it."""

    status = 422


def wrong_input(error: msgspec.ValidationError) -> WrongInput:
    """What msgspec has found, and where.

    Example:
        >>> wrong_input(msgspec.ValidationError("Expected `int` - at `$.x[0]`")).where
        '$.x[0]'
    """
    message, _, where = str(error).partition(" - at `")
    return WrongInput(message, where.rstrip("`"))


class Unauthorized(Refused):
    """The token is missing, or another one."""

    status = 401


class Overloaded(Refused):
    """The request would be late, or too many wait.

    Args:
        wait_s: after which it is worth another try.
        message: for people.
    """

    status = 429

    def __init__(self, wait_s: float, message: str) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class ClientGone(Refused):
    """Nobody waits for the answer; the status is that of nginx's logs."""

    status = 499


class NotReady(Refused):
    """The server starts, or ends."""

    status = 503


class ReplicaDied(Refused):
    """The process that computed the request has died.

    The next one, too; or it may not be computed once more.
    """

    status = 503


class DeadlineMissed(Refused):
    """The time of the request was over before it was begun."""

    status = 504


def told(error: BaseException) -> Reply:
    """What a client is told of an error; of one of the model's, its type and its message.

    Example:
        >>> told(WrongInput("expected float", "$.x")).body
        b'{"error":{"type":"WrongInput","message":"expected float","where":"$.x"}}'
        >>> told(ZeroDivisionError("division by zero")).status
        500
    """
    where = error.where if isinstance(error, Refused) else ""
    status = error.status if isinstance(error, Refused) else 500
    body = {"type": type(error).__name__, "message": str(error), "where": where}
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if isinstance(error, Overloaded):
        headers = ((b"retry-after", b"%d" % max(1, round(error.wait_s + 0.5))),)
    return Reply(status, msgspec.json.encode({"error": body}), headers=headers)
