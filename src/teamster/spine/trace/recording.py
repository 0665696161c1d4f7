# SPDX-License-Identifier: BSD-3-Clause
"""`ts.record`: the timeline of a part of a program, or by ``TEAMSTER_TRACE`` of all of it."""

from __future__ import annotations

import os
import sys
import threading
from functools import partial
from time import perf_counter_ns
from types import TracebackType
from typing import TYPE_CHECKING

from teamster import lifetime
from teamster.errors import UsageError, annotate
from teamster.spine.trace.export import check_path, html_of, plot, png_of, save
from teamster.spine.trace.timeline import Timeline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from teamster.spine.trace.recorder import ProgramRecorder


class Recording:
    """What `record` returns: a context manager that holds the timeline of its block.

    Args:
        path: where to write it at the end; None for nowhere.

    Example:
        >>> import teamster as ts
        >>> with ts.record() as recording:
        ...     _ = ts.map(abs, [-1, 2], backend="serial")
        >>> [lane.label for lane in recording.timeline.lanes]
        ['caller']
    """

    def __init__(self, path: str | None) -> None:
        self.path = path
        self._recorder: ProgramRecorder | None = None
        self._begin_ns = self._lost_before = self._pid = 0
        self._timeline: Timeline | None = None

    def __enter__(self) -> Recording:
        from teamster.spine.trace.recorder import open_recorder

        if self._recorder is not None:
            raise UsageError("this recording is under way already; make another with ts.record()")
        recorder = open_recorder()
        self._lost_before, self._pid = recorder.lost, os.getpid()
        self._begin_ns = perf_counter_ns()
        self._recorder, self._timeline = recorder, None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        from teamster.spine.trace.recorder import close_recorder

        recorder = self._recorder
        if recorder is None or self._pid != os.getpid():
            # Closed before; or a forked copy of the program, to which it does not belong
            self._recorder = None
            return
        try:
            self._timeline = recorder.timeline(self._begin_ns, self._lost_before)
        finally:
            self._recorder = None
            close_recorder(recorder)
        if self.path is None:
            return
        try:
            save(self._timeline, self.path)
        except Exception as failure:
            if error is None:
                raise
            annotate(error, f"and the timeline could not be written to {self.path!r}: {failure}")

    @property
    def timeline(self) -> Timeline:
        """What happened in the block; in the middle of it, so far.

        Raises:
            UsageError: it has not begun.
        """
        if self._timeline is not None:
            return self._timeline
        if self._recorder is None or self._pid != os.getpid():
            raise UsageError("nothing was recorded: use the recording in a with block")
        return self._recorder.timeline(self._begin_ns, self._lost_before)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the timeline, once more or to another place.

        Args:
            path: ``.html`` for a page, ``.png`` or ``.svg`` for a picture, ``.json`` for the Chrome
                trace format, ``.pftrace`` for Perfetto's.

        Raises:
            UsageError: the ending is not known, or the path cannot be written.
            OSError: the disk is full, or the like.

        Example:
            >>> import teamster as ts
            >>> with ts.record() as recording:
            ...     pass
            >>> recording.save("/no/such/folder/run.html")
            Traceback (most recent call last):
            teamster.errors.UsageError: a timeline cannot be written to '/no/such/folder/run.html':
            No such file or directory ...
        """
        save(self.timeline, check_path(path))

    def plot(self) -> Figure:
        """Draw the classic picture.

        Returns:
            A matplotlib figure.

        Raises:
            UsageError: matplotlib is not installed.

        Example:
            >>> import teamster as ts
            >>> with ts.record() as recording:
            ...     _ = ts.map(abs, [-1, 2])
            >>> len(recording.plot().axes) > 0
            True
        """
        return plot(self)

    def _repr_png_(self) -> bytes | None:
        return png_of(self.timeline)

    def _repr_html_(self) -> str:
        timeline = self.timeline
        return html_of(
            timeline,
            f"{timeline.spans:,} spans in {timeline.seconds:.3g} s on {len(timeline.lanes)} lanes",
        )


def record(path: str | os.PathLike[str] | None = None) -> Recording:
    """Record what every worker does in a ``with`` block, and draw it.

    Workers that run already are recorded from their next batch on. The block ends with the file,
    also when it raises.

    Args:
        path: where to: ``.html`` for a page that needs nothing else, ``.png`` or ``.svg`` for a
            picture (matplotlib), ``.json`` for the Chrome trace format, ``.pftrace`` for
            Perfetto's; None for no file.

    Returns:
        The recording, with the ``timeline`` as a value.

    Raises:
        UsageError: the ending is not known, or the path cannot be written; nothing has run yet.

    Example:
        >>> import teamster as ts
        >>> with ts.record() as recording, ts.Pool("process", workers=2) as pool:
        ...     _ = pool.map(abs, range(100))
        >>> sorted(lane.label for lane in recording.timeline.lanes)[-1]
        'process ...'
    """
    return Recording(None if path is None else check_path(path))


_program: Recording | None = None
_program_lock = threading.Lock()


def record_program() -> None:
    """Record from now on until the program ends, if ``TEAMSTER_TRACE`` names a file.

    Raises:
        UsageError: it names one that cannot be written.
    """
    global _program
    with _program_lock:  # two threads may open their first pools at once
        if _program is not None or not (path := os.environ.get("TEAMSTER_TRACE")):
            return
        try:
            recording = record(os.path.abspath(path))
        except UsageError as error:
            raise UsageError(f"TEAMSTER_TRACE: {error}") from None
        _program = recording.__enter__()
        lifetime.end_at_exit(partial(_end_program, os.getpid()))


def _end_program(pid: int) -> None:
    """Write it; earlier than pools that are still open are ended."""
    if _program is None or pid != os.getpid():  # a forked copy of the program
        return
    try:
        _program.__exit__(None, None, None)
    except Exception as error:
        print(
            f"teamster: the timeline could not be written to {_program.path!r}: {error}",
            file=sys.stderr,
        )
