# SPDX-License-Identifier: BSD-3-Clause
"""Where the calling code writes its spans.

This is all that hot loops import, and `ts.span` for the user's own parts.

::

    current_ring()  -->  None                        nothing is recorded: one look at a name
                         the ring of this thread     in a program that records
                         the ring of this worker     in a process worker of such a program
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable
from time import perf_counter_ns
from types import TracebackType
from typing import Any, Protocol, TypeVar

from teamster.spine.trace.ring import GRAIN_NS, SKIPPED, USER, Ring

_COROUTINE = 0x80  # inspect.CO_COROUTINE, without inspect, which takes 10 ms to load

Function = TypeVar("Function", bound=Callable[..., Any])

WORTH_NS = 20_000
"""Shorter spans of Teamster's own are not worth their place: waiting, pickling, sending."""


class Recorder(Protocol):
    """The object that records in this process."""

    def ring(self) -> Ring:
        """That of the calling thread."""

    def mark(self, text: str, lane: str) -> None:
        """Note a moment."""

    def attend(self, key: int, note: Callable[[int], Any]) -> None:
        """Ask `note` at the end for what is to be said of a pool since a moment (ns).

        A second time for one key, ask another.
        """

    def follow(self, remote: Remote) -> None:
        """Read a worker's ring from now on."""

    def leave(self, remote: Remote) -> None:
        """Read it for the last time: the worker is gone."""

    def leave_thread(self) -> None:
        """The same of the calling thread, which ends."""


class Remote(Protocol):
    """A worker in another process, as the recorder sees it."""

    label: str
    kind: str
    index: int

    def switch(self, on: bool) -> None:
        """Have the worker write its spans, or stop it."""

    def memory(self) -> Any:
        """Its ring."""


_recorder: Recorder | None = None
_remotes: weakref.WeakSet[Remote] = weakref.WeakSet()
# Re-entrant: a pool may be collected, and its workers leave, in the middle of it
_remotes_lock = threading.RLock()
_of_thread = threading.local()


def name_lane(label: str, kind: str, index: int) -> None:
    """The calling thread is a worker."""
    _of_thread.lane = label, kind, index


def lane_of_thread() -> tuple[str, str, int] | None:
    """What the calling thread was named; None for a thread of the program's own."""
    lane: tuple[str, str, int] | None = getattr(_of_thread, "lane", None)
    return lane


def remotes() -> list[Remote]:
    """The workers in other processes."""
    with _remotes_lock:
        return list(_remotes)


def is_there(remote: Remote) -> bool:
    """Whether a worker is still there."""
    with _remotes_lock:
        return remote in _remotes


def forget() -> None:
    """In a forked copy of the program: workers and recorder are the original's."""
    global _recorder, _remotes, _remotes_lock
    _recorder, _remotes, _remotes_lock = None, weakref.WeakSet(), threading.RLock()


def welcome(remote: Remote) -> None:
    """A worker in another process is there."""
    with _remotes_lock:
        _remotes.add(remote)
    if _recorder is not None:
        _recorder.follow(remote)


def part(remote: Remote) -> None:
    """A worker in another process is gone.

    Its memory can still be read, and is let go after this.
    """
    with _remotes_lock:
        # First: a thread in `follow` looks for it, and holds the lock that `leave` waits for
        _remotes.discard(remote)
    if _recorder is not None:
        _recorder.leave(remote)


def install(recorder: Recorder | None) -> None:
    """Have the spans of this process written, or written no more."""
    global _recorder
    _recorder = recorder


def current_recorder() -> Recorder | None:
    """What records in this process; None when nothing does."""
    return _recorder


def current_ring() -> Ring | None:
    """Where the calling thread writes; None when nothing is recorded."""
    recorder = _recorder
    return None if recorder is None else recorder.ring()


def mark(text: str, lane: str = "") -> None:
    """Note a moment, if something is recorded."""
    if _recorder is not None:
        _recorder.mark(text, lane)


def leave_thread() -> None:
    """The calling thread ends."""
    if _recorder is not None:
        _recorder.leave_thread()


def note(ring: Ring | None, kind: int, name: str, begin_ns: int, argument: int = -1) -> None:
    """Write a span that ends now, if something is recorded and it is long enough."""
    if ring is None or (length := (now := perf_counter_ns()) - begin_ns) <= WORTH_NS:
        return
    if length >= ring.grain_ns:
        ring.write(begin_ns, now, argument, 1, ring.name(name), kind)


class span:
    """A part of the user's own code, shown on the timeline while something is recorded.

    Otherwise it does nothing. Works in workers of every kind but "interpreter", nested, as a
    context manager and as a decorator of functions and coroutine functions.

    Args:
        name: what the timeline calls it.

    Raises:
        UsageError: the name is not a string.

    Example:
        >>> import teamster as ts
        >>> @ts.span("decode")
        ... def decode(data):
        ...     with ts.span("unpack"):
        ...         return data.decode()
        >>> with ts.record() as recording:
        ...     decode(b"text")
        'text'
        >>> [name for name in recording.timeline.names if name]
        ['unpack', 'decode']
    """

    __slots__ = ("_began", "_name")

    def __init__(self, name: str) -> None:
        if not isinstance(name, str):
            from teamster.errors import UsageError

            raise UsageError(
                f"the name of a span must be a string, not {type(name).__name__} {name!r:.60}"
            )
        self._name = name
        # When, and what stood here before: an object may be entered again inside itself
        self._began: Any = None

    def __enter__(self) -> span:
        self._began = perf_counter_ns(), self._began
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        began, self._began = self._began
        if _recorder is not None:
            ring, ended = _recorder.ring(), perf_counter_ns()
            if ended - began < ring.words[GRAIN_NS]:
                # There were too many; what contains it is shown
                ring.words[SKIPPED] += 1
            else:
                ring.write(
                    began, ended, -1, 1, ring.names.get(self._name) or ring.name(self._name), USER
                )

    def __call__(self, function: Function) -> Function:
        """Show every call of `function`.

        Args:
            function: what is decorated.

        Returns:
            A function that does the same.
        """
        name = self._name
        wrapped: Any
        if getattr(getattr(function, "__code__", None), "co_flags", 0) & _COROUTINE:

            @functools.wraps(function)
            async def wrapped(*args: Any, **kwargs: Any) -> Any:
                with span(name):
                    return await function(*args, **kwargs)
        else:

            @functools.wraps(function)
            def wrapped(*args: Any, **kwargs: Any) -> Any:
                with span(name):
                    return function(*args, **kwargs)

        return wrapped  # type: ignore[no-any-return]
