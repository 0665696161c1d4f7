# SPDX-License-Identifier: BSD-3-Clause
"""Whether a call that raised had done anything before, as far as its code can tell.

If not, it may be made again.

::

    traceback --> each frame of it --> the instructions that may have run before the one that raised
                                         a store outside, a call of anything that is not known to be
                                         harmless: it has begun

An error that says that the place was wrong (another thread, no event loop, a missing module) mostly
comes from the first call of a function. Where that is not so, the item counts as begun, and is
never run twice.
"""

from __future__ import annotations

import builtins
import os
import sys
import types
from collections.abc import Iterator
from typing import Any

_OURS = os.path.dirname(os.path.dirname(os.path.dirname(__file__))) + os.sep
_EFFECTS = (
    "STORE_ATTR", "STORE_SUBSCR", "STORE_GLOBAL", "STORE_SLICE", "DELETE_ATTR", "DELETE_SUBSCR",
    "DELETE_GLOBAL", "SEND", "YIELD_VALUE", "BEFORE_WITH", "BEFORE_ASYNC_WITH", "LOAD_SPECIAL",
)  # fmt: skip
_HARMLESS_MODULES = (
    "base64", "binascii", "bisect", "cmath", "collections", "copy", "datetime", "decimal",
    "fractions", "functools", "hashlib", "html", "itertools", "json", "math", "operator",
    "posixpath", "re", "statistics", "string", "struct", "textwrap", "time", "unicodedata", "zlib",
)  # fmt: skip
_NOT_HARMLESS = (
    "__build_class__", "__import__", "anext", "breakpoint", "compile", "delattr", "eval", "exec",
    "filter", "input", "iter", "map", "next", "open", "print", "setattr",
)  # fmt: skip
_ASKED = ("signal", "asyncio.events")  # modules with functions that look first where they are
_PLAIN = (str, bytes, int, float, complex, bool, tuple, frozenset, range, type(None))
_known: dict[tuple[types.CodeType, int], bool] = {}  # by instruction; code is kept, and few raise
_MOST_KNOWN = 256  # code objects; a program that makes them without end starts over
_QUESTIONS = (
    ("_thread", "get_ident"),
    ("threading", "current_thread"),
    ("threading", "main_thread"),
    ("posix", "getpid"),
)
# Generators, coroutines and both (inspect.CO_...): to call one is not to run it
_NOT_BEGUN = 0x20 | 0x80 | 0x200


def has_begun(error: BaseException) -> bool:
    """Whether the call that raised `error` may have had an effect before.

    Args:
        error: with its traceback.

    Returns:
        True wherever that cannot be excluded.

    Example:
        >>> def at_once(text):
        ...     return int(text)
        >>> def late(text):
        ...     print("saved")
        ...     return int(text)
        >>> def ask(function):
        ...     try:
        ...         function("x")
        ...     except ValueError as error:
        ...         error.__traceback__ = error.__traceback__.tb_next
        ...         return has_begun(error)
        >>> ask(at_once), ask(late)
        saved
        (False, True)
    """
    step = error.__traceback__
    while step is not None and step.tb_frame.f_code.co_filename.startswith(_OURS):
        step = step.tb_next
    if step is None:
        return True
    while step is not None:
        if step.tb_frame.f_globals.get("__name__") in _ASKED:
            step = step.tb_next
            continue
        key = step.tb_frame.f_code, step.tb_lasti
        if key not in _known:
            if len(_known) >= _MOST_KNOWN:
                _known.clear()
            try:
                _known[key] = _did_something(step.tb_frame, step.tb_lasti)
            except Exception:
                # Instructions of another version of Python, an object that refuses to be looked at
                _known[key] = True
        if _known[key]:
            return True
        step = step.tb_next
    return False


def _did_something(frame: types.FrameType, last: int) -> bool:
    import dis

    everything = list(dis.get_instructions(frame.f_code))
    # A call stands behind its instruction
    raised_at = max(each.offset for each in everything if each.offset <= last)
    # In a loop what follows may have run as well, in the round before.
    backward = [
        each.offset
        for each in everything
        if "JUMP_BACKWARD" in each.opname and each.argval <= raised_at < each.offset
    ]
    before = [
        each
        for each in everything
        if each.offset < max([raised_at, *backward]) and (backward or each.offset != raised_at)
    ]
    if any(each.opname in _EFFECTS for each in before):
        return True
    if any(
        each.opname == "STORE_DEREF" and each.argval in frame.f_code.co_freevars for each in before
    ):
        return True
    calls = [
        position
        for position, each in enumerate(before)
        if each.opname in ("CALL", "CALL_KW", "CALL_FUNCTION_EX")
    ]
    if not calls:
        return False
    return any(not _is_harmless(each) for each in _loaded(before[: calls[-1]], frame))


def _loaded(instructions: list[Any], frame: types.FrameType) -> Iterator[Any]:
    """What may have been called.

    That is all that was loaded: attributes of modules as themselves, other methods as `getattr`.
    """
    value: Any = None
    for each in instructions:
        if each.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            if isinstance(value, types.ModuleType):
                value = getattr(value, each.argval)
            elif not isinstance(value, _PLAIN):
                value = getattr if _is_method(each) else None
        elif each.opname.startswith("LOAD_"):
            yield value
            value = _value_of(each, frame)
    yield value


def _is_method(load: Any) -> bool:
    """Whether an attribute is loaded to be called.

    One that was stored before is met as a variable.
    """
    return load.opname == "LOAD_METHOD" or (sys.version_info >= (3, 12) and bool(load.arg & 1))


def _value_of(load: Any, frame: types.FrameType) -> Any:
    if load.opname == "LOAD_CONST" or not isinstance(load.argval, str):
        return load.argval
    names = (frame.f_locals, frame.f_globals, vars(builtins))
    return next((each[load.argval] for each in names if load.argval in each), None)


def _is_harmless(value: Any) -> bool:
    if value is getattr:
        return False
    if isinstance(value, types.ModuleType) or not callable(value):
        return True
    if isinstance(value, types.FunctionType) and value.__code__.co_flags & _NOT_BEGUN:
        return True
    module, name = getattr(value, "__module__", None), getattr(value, "__name__", "")
    if (module, name) in _QUESTIONS:
        return True
    return (module == "builtins" and name not in _NOT_HARMLESS) or module in _HARMLESS_MODULES
