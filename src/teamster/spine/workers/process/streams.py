# SPDX-License-Identifier: BSD-3-Clause
"""What a task prints, logs and warns, brought home.

Whole lines go to the parent's streams, records and warnings to its loggers and filters.

::

    worker                                   parent
    print --> LineStream --("text", ...)---> sys.stdout / sys.stderr, as they are at that moment
    logging -> Forwarder --("log", ...)----> the logger of the same name, if it is enabled for the
                                             level
    warnings -> show -----("warning", ...)-> warnings.warn_explicit: the parent's filters, once for
                                             all workers

What goes past Python's streams (a C library, a subprocess) writes to the parent's descriptors
directly, and so do processes that a task has forked (``multiprocessing.Process``).
"""

from __future__ import annotations

import io
import os
import pickle
import sys
from collections.abc import Callable
from typing import Any

from teamster import lifetime

KINDS = frozenset(("text", "log", "warning"))
"""How the messages begin that `deliver` takes."""

Post = Callable[[tuple[Any, ...]], Any]


class _Bytes(io.RawIOBase):
    """What a `LineStream` is on top of.

    Bytes become text for the way, and bytes again where that is no text.
    """

    def __init__(self, lines: LineStream) -> None:
        self.lines = lines

    def writable(self) -> bool:
        """Yes."""
        return True

    def fileno(self) -> int:
        """That of the text."""
        return self.lines.fileno()

    def write(self, data: Any) -> int:
        """Send what is complete."""
        data = bytes(data)
        self.lines.take(data.decode(self.lines.encoding, "surrogateescape"))
        return len(data)

    def drain(self) -> None:
        """The worker ends."""
        self.lines.drain()


class LineStream(io.TextIOBase):
    """A text stream of a worker that sends whole lines."""

    mode = "w"
    line_buffering = True
    write_through = False

    def __init__(self, name: str, post: Post, coding: tuple[str | None, str | None]) -> None:
        self.name = f"<{name}>"
        self._name = name
        self._post = post
        self._encoding, self._errors = coding
        self._rest = ""
        self._in_lines = True
        self.buffer = _Bytes(self)

    def writable(self) -> bool:
        """Yes."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of the program's stream, in which the text ends up."""
        return self._encoding or "utf-8"

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """How the program's stream treats what it cannot encode."""
        return self._errors

    def reconfigure(
        self, *, encoding: str | None = None, errors: str | None = None, **_: Any
    ) -> None:
        """Take what a program sets of its streams; when lines are sent is decided here."""
        self._encoding, self._errors = (
            encoding or self._encoding,
            errors or ("strict" if encoding else self._errors),
        )

    def detach(self) -> Any:
        """The stream of bytes."""
        return self.buffer

    def fileno(self) -> int:
        """The descriptor that the parent's stream had when the worker started.

        It is for subprocesses of a task.
        """
        return 1 if self._name == "stdout" else 2

    def write(self, text: str) -> int:
        """Send every line that is complete; keep the rest until it is.

        Raises:
            UnicodeEncodeError: the program's stream cannot take this text; it would have said so to
                the task.
        """
        if self._encoding is not None and not text.isascii() and not self.closed:
            text.encode(self._encoding, self._errors or "strict")
        return self.take(text)

    def take(self, text: str) -> int:
        """Send every line that is complete, whatever it is made of; keep the rest until it is."""
        if self.closed:
            return len(text)
        self._rest += text
        end = self._rest.rfind("\n") + 1 if self._in_lines else len(self._rest)
        if end:
            complete, self._rest = self._rest[:end], self._rest[end:]
            self._post(("text", self._name, complete))
        return len(text)

    def close(self) -> None:
        """Send what has no end of line yet.

        Later writes go nowhere, as a task that closes its streams asks for.
        """
        if not self.closed:
            self.drain()
        super().close()

    def part(self) -> None:
        """In a forked copy of the worker: drop what waits, and send everything at once.

        What waits is the worker's, and nothing says when the copy ends.
        """
        self._rest, self._in_lines = "", False

    def drain(self) -> None:
        """Send what has no end of line yet, with one: the worker ends."""
        rest, self._rest = self._rest, ""
        if rest:
            self._post(("text", self._name, rest + "\n"))


def redirect(post: Post, settings: dict[str, Any]) -> None:
    """In a worker: send prints, log records and warnings by `post`.

    `settings` is what `snapshot` saw in the parent.
    """
    posts = [post]  # the last counts

    def post_now(message: tuple[Any, ...]) -> None:
        posts[-1](message)

    streams = [
        LineStream(name, post_now, coding)
        for name, coding in zip(("stdout", "stderr"), settings["coding"], strict=True)
    ]
    sys.stdout, sys.stderr = streams

    def part() -> None:
        posts.append(_show_here)
        for stream in streams:
            stream.part()

    lifetime.in_forked_copy(part)
    if settings["log_level"] is not None:
        _forward_logs(post_now, settings["log_level"])
    _forward_warnings(post_now, settings["warning_filters"])


def _show_here(message: tuple[Any, ...]) -> None:
    """In a process that a task has forked: write to the descriptors shared with the program.

    It has no other way to the program.
    """
    import logging
    import warnings

    number = 1 if message[1] == "stdout" else 2
    if message[0] == "text":
        text = message[2]
    elif message[0] == "log":
        text = (
            logging.Formatter(logging.BASIC_FORMAT).format(logging.makeLogRecord(message[1])) + "\n"
        )
    else:
        text = warnings.formatwarning(message[2], pickle.loads(message[1]), *message[3:])
    data = text.encode("utf-8", "surrogateescape")
    while data:
        data = data[os.write(number, data) :]


def snapshot() -> dict[str, Any]:
    """In the parent: what a worker needs to know to send only what is wanted."""
    import warnings

    entries: list[Any] = list(warnings.filters)
    filters = [
        (*entry[:2], (entry[2].__module__, entry[2].__qualname__), *entry[3:]) for entry in entries
    ]
    coding = [
        (_text_of(stream, "encoding"), _text_of(stream, "errors"))
        for stream in (sys.stdout, sys.stderr)
    ]
    return {"warning_filters": filters, "log_level": _lowest_level(), "coding": coding}


def _text_of(stream: Any, name: str) -> str | None:
    """An attribute of a stream that may be any object."""
    value = getattr(stream, name, None)
    return value if isinstance(value, str) else None


def deliver(message: tuple[Any, ...]) -> Exception | None:
    """In the parent: give a worker's text, record or warning to what it was meant for.

    Returns:
        What the stream raised that a text was written to: the reader of a pipe is gone, the disk is
        full. It would have ended the loop, and is to end the call, when nothing is lost by it.
    """
    kind = message[0]
    try:
        if kind == "text":
            stream = getattr(sys, message[1])
            if stream is not None:
                _write(stream, message[2])
                stream.flush()
        elif kind == "log":
            _deliver_record(message[1])
        else:
            _deliver_warning(*message[1:])
    except Exception as error:
        return error if kind == "text" else None
    return None


def _write(stream: Any, text: str) -> None:
    """Write a text; if it is none, the bytes that it stands for."""
    try:
        stream.write(text)
    except UnicodeEncodeError:
        if not hasattr(stream, "buffer"):
            raise
        stream.flush()
        stream.buffer.write(text.encode(_text_of(stream, "encoding") or "utf-8", "surrogateescape"))


_registry: dict[Any, Any] = {}  # shared by all workers, so that "once per place" means once


def _deliver_warning(category: bytes, text: str, filename: str, line: int) -> None:
    import warnings

    warnings.warn_explicit(text, pickle.loads(category), filename, line, registry=_registry)


def _deliver_record(state: dict[str, Any]) -> None:
    import logging

    logger = logging.getLogger(state["name"])
    if logger.isEnabledFor(state["levelno"]):
        logger.handle(logging.makeLogRecord(state))


def _lowest_level() -> int | None:
    """The lowest level at which any logger here is enabled; None when the program does not log."""
    logging = sys.modules.get("logging")
    if logging is None:
        return None
    levels: list[int] = [logging.root.level]
    levels += [
        logger.level
        for logger in list(logging.root.manager.loggerDict.values())
        if getattr(logger, "level", 0)
    ]
    return max(min(levels), int(logging.root.manager.disable) + 1)


def _forward_logs(post: Post, level: int) -> None:
    import logging

    class Forwarder(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            try:
                post(("log", self.prepare(record)))
            except Exception:
                # As in any handler: a mistake in a message is printed, and is not the task's
                self.handleError(record)

        def prepare(self, record: logging.LogRecord) -> dict[str, Any]:
            state = dict(vars(record))
            state["msg"], state["args"] = record.getMessage(), None
            if record.exc_info:
                state["exc_text"] = record.exc_text or logging.Formatter().formatException(
                    record.exc_info
                )
                state["exc_info"] = None
            for name, value in list(state.items()):
                if type(value) not in _PLAIN:
                    state[name] = repr(value)
            return state

    logging.root.handlers[:] = [Forwarder()]
    logging.root.setLevel(level)


_PLAIN = (str, int, float, bool, type(None))


class _ByName(type):
    """A class that stands for the one of its name, which this process may load later or never.

    NumPy filters warnings of a class of its own; a filter that came with that class had every
    worker import NumPy before its first task. (A pool of two did nothing in 135 ms instead of 18.)
    """

    def __subclasscheck__(cls, other: type) -> bool:
        wanted = cls.__module__, cls.__qualname__
        return any((each.__module__, each.__qualname__) == wanted for each in other.__mro__)


def _category(module: str, name: str) -> type:
    """A class of warnings."""
    if module == "builtins":
        import builtins

        known: type = getattr(builtins, name, Warning)
        return known
    return _ByName(name, (Warning,), {"__module__": module, "__qualname__": name})


def _forward_warnings(post: Post, filters: list[Any]) -> None:
    import warnings

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        *_: Any,
        **__: Any,
    ) -> None:
        try:
            name = pickle.dumps(category)
        except Exception:
            name = pickle.dumps(UserWarning)
        post(("warning", name, str(message), filename, lineno))

    warnings.filters[:] = [(*entry[:2], _category(*entry[2]), *entry[3:]) for entry in filters]  # type: ignore[index]
    getattr(warnings, "_filters_mutated", lambda: None)()
    warnings.showwarning = show
