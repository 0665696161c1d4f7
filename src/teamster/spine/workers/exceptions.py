# SPDX-License-Identifier: BSD-3-Clause
"""How an exception of a task gets home.

It comes as its own type, with the worker's traceback, or as a text that tells it all.
"""

from __future__ import annotations

import os.path
import pickle
from typing import Any

from teamster.errors import RemoteError, TransferError, annotate
from teamster.spine.transport.pickled import pack_whole
from teamster.spine.workers.begun import has_begun

Description = tuple[bytes | None, bytes | None, str, str, bool]
"""What travels of an exception.

The pickled exception; its pickled parts, when as a whole it does not survive pickling; its repr;
its traceback; `has_begun`.
"""

_OWN_FOLDER = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))


class RemoteTraceback(Exception):
    """Stands as the cause of an exception from a worker, and shows the traceback there."""

    def __init__(self, text: str, begun: bool = True) -> None:
        super().__init__(text)
        self.text = text
        self.begun = begun

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def wrap_control_flow(error: BaseException) -> BaseException:
    """What may be raised in the caller for `error`.

    That is most exceptions as they are, and those that steer a program as `RemoteError`.
    ``SystemExit`` would end the caller's program, ``KeyboardInterrupt`` look like its user's,
    ``StopIteration`` end its loop.
    """
    if isinstance(error, Exception) and not isinstance(error, (StopIteration, StopAsyncIteration)):
        return error
    wrapped = RemoteError(
        f"the task raised {error!r}, which would steer the program and not its item, so it stops "
        "here; raise an Exception instead"
    )
    wrapped.__cause__ = error
    return wrapped


def describe(error: BaseException) -> Description:
    """Make `error` ready to travel; called in the worker, where it was raised."""
    import traceback

    text = "".join(traceback.format_exception(type(error), error, _user_frames(error)))
    shown, begun = _safe_repr(error), has_begun(error)
    whole = parts = None
    traceback_of = error.__traceback__
    try:
        candidate = pack_whole(error.with_traceback(None), home=True)
        pickle.loads(candidate)  # an __init__ with other arguments than `args` shows only here
        whole = candidate
    except BaseException:
        parts = _pack_parts(error)
    finally:
        # The caller may raise it on; set in this way whatever its class thinks of attributes
        BaseException.with_traceback(error, traceback_of)
    return whole, parts, shown, text, begun


def rebuild(description: Description) -> BaseException:
    """The exception, in the parent: its own type wherever that can be made."""
    whole, parts, shown, text, begun = description
    error = _load(whole, parts)
    if error is None:
        error = RemoteError(
            f"the task raised {shown}; its type cannot be rebuilt in this process, so only the "
            "text arrived; define the class in a module, and pass all that its __init__ takes on "
            "to super().__init__"
        )
    error = wrap_control_flow(error)
    set_cause(error, RemoteTraceback(text, begun))
    return error


def set_cause(error: BaseException, cause: BaseException) -> None:
    """Say what an exception came from, whatever its class thinks of attributes.

    This goes round a ``__setattr__`` of its own.
    """
    vars(BaseException)["__cause__"].__set__(error, cause)


def transfer_error(
    what: str, reason: BaseException, instead: str = "or use backend='thread'"
) -> TransferError:
    """The error for a function, an argument or a result that does not travel.

    `what` is "the argument", or begins so.
    """
    error = TransferError(
        f"{what} cannot be sent between processes: {_with_notes(reason)}; return or pass plain "
        f"data instead, {instead}",
        part=what.split()[1],
    )
    error.__cause__ = reason
    return error


def _load(whole: bytes | None, parts: bytes | None) -> BaseException | None:
    try:
        if whole is not None:
            loaded = pickle.loads(whole)
            return loaded if isinstance(loaded, BaseException) else None
        if parts is not None:
            kind, arguments, state, notes = pickle.loads(parts)
            if issubclass(kind, BaseExceptionGroup):
                arguments = arguments[0], [rebuild(each) for each in arguments[1]]
            error: BaseException = kind.__new__(kind, *arguments)
            vars(BaseException)["args"].__set__(error, arguments)
            error.__dict__.update(state)
            for note in notes:
                annotate(error, note)
            return error
    except KeyboardInterrupt:
        raise
    except BaseException:
        return None
    return None


def _pack_parts(error: BaseException) -> bytes | None:
    """Type, arguments and attributes.

    For a class with a constructor that takes something else than ``args``, and for a group of
    errors, each of which comes as well as it can.
    """
    state: dict[str, Any] = {}
    for name, value in vars(error).items():
        if name != "__notes__" and _travels(value):
            state[name] = value
    arguments: tuple[Any, ...]
    if isinstance(error, BaseExceptionGroup):
        arguments = error.message, [describe(each) for each in error.exceptions]
    else:
        arguments = tuple(value if _travels(value) else _safe_repr(value) for value in error.args)
    try:
        return pack_whole(
            (type(error), arguments, state, list(getattr(error, "__notes__", []))), home=True
        )
    except BaseException:
        return None


def _travels(value: object) -> bool:
    try:
        pickle.loads(pack_whole(value, home=True))
    except BaseException:
        return False
    return True


def _safe_repr(error: BaseException | object) -> str:
    try:
        return repr(error)
    except BaseException:
        return f"<{type(error).__name__}, with a repr that fails>"


def _with_notes(reason: BaseException) -> str:
    """What was raised, and what was noted of it: advice, perhaps."""
    return "; ".join([_safe_repr(reason), *getattr(reason, "__notes__", ())])


def _user_frames(error: BaseException) -> Any:
    """The traceback from the first frame on that is not ours."""
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_filename.startswith(_OWN_FOLDER):
        frame = frame.tb_next
    return frame
