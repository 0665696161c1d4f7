# SPDX-License-Identifier: BSD-3-Clause
"""From a timeline to what people look at: the ending of the file says which view."""

from __future__ import annotations

import contextlib
import html
import itertools
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from teamster.errors import UsageError
from teamster.spine.trace.timeline import Timeline

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_partials = itertools.count()


def check_path(path: str | os.PathLike[str]) -> str:
    """Refuse, before the work, a path that a timeline cannot be written to.

    Args:
        path: where to.

    Returns:
        The path as a string.

    Raises:
        UsageError: the ending is not known, the folder is missing or cannot be written, or a
            library is missing.

    Example:
        >>> check_path("timeline.txt")
        Traceback (most recent call last):
        teamster.errors.UsageError: a timeline is written as .html, .png, .svg, .json or .pftrace;
        'timeline.txt' ends otherwise
    """
    where: Any = path
    if isinstance(where, os.PathLike):
        where = os.fspath(where)
    if not isinstance(where, str):
        raise UsageError(
            f"a timeline is written to a path, not to {type(path).__name__} {path!r:.60}"
        )
    ending = os.path.splitext(where)[1].lower()
    if ending not in _WRITERS:
        *most, last = _WRITERS
        raise UsageError(
            f"a timeline is written as {', '.join(most)} or {last}; {where!r} ends otherwise"
        )
    if ending in (".png", ".svg"):
        _check_matplotlib()
    folder = os.path.dirname(where) or "."
    try:
        if os.path.lexists(where) and stat.S_ISDIR(os.stat(where).st_mode):
            raise UsageError(f"a timeline cannot be written to {where!r}: it is a folder")
        with contextlib.suppress(FileNotFoundError):
            os.lstat(where)  # a name that is too long
        with tempfile.TemporaryFile(dir=folder):  # the only way to know; it leaves nothing behind
            pass
    except OSError as error:
        raise UsageError(
            f"a timeline cannot be written to {where!r}: {error.strerror} ({folder!r})"
        ) from None
    except ValueError as error:  # of the system's calls, for a name with a zero in it
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"a timeline cannot be written to {where!r}: {error}") from None
    return where


def _check_matplotlib() -> None:
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise UsageError(
            "pictures need matplotlib: pip install 'teamster[plot]'; a .html page needs nothing"
        )


def save(timeline: Timeline, path: str | os.PathLike[str]) -> None:
    """Write a timeline; the file is there in full or not at all.

    Args:
        timeline: what happened.
        path: where to; the ending chooses the view.

    Raises:
        UsageError: the ending is not known.
        OSError: the disk is full, or the like.

    Example:
        >>> import os, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(Timeline(0, 1, 0.0, ("",), ()), f"{folder}/out.json")
        ...     os.listdir(folder)
        ['out.json']
    """
    where = os.fspath(path)
    ending = os.path.splitext(where)[1].lower()
    if ending not in _WRITERS:
        check_path(where)
    with _whole(where) as file:
        _WRITERS[ending](timeline, file)


@contextmanager
def _whole(path: str) -> Iterator[BinaryIO]:
    """A file that takes its place when it is complete."""
    partial = os.path.join(os.path.dirname(path), f".teamster-{os.getpid()}-{next(_partials)}")
    try:
        with open(partial, "wb") as file:
            yield file
        os.replace(partial, path)
    except BaseException:
        if os.path.exists(partial):
            os.unlink(partial)
        raise


def write_whole(path: str, data: bytes) -> None:
    """Write a file that is there in full or not at all.

    Args:
        path: where to.
        data: what it is to hold.

    Raises:
        OSError: the disk is full, or the like.

    Example:
        >>> import os, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_whole(f"{folder}/page.html", b"<p>")
        ...     os.listdir(folder)
        ['page.html']
    """
    with _whole(path) as file:
        file.write(data)


def _write_page(timeline: Timeline, file: BinaryIO) -> None:
    from teamster.spine.trace.render.page import to_html

    title = timeline.jobs[0].title if timeline.jobs else "timeline"
    file.write(to_html([(title, timeline)], title="Teamster timeline").encode())


def _write_png(timeline: Timeline, file: BinaryIO) -> None:
    file.write(_picture(timeline, "png"))


def _write_svg(timeline: Timeline, file: BinaryIO) -> None:
    file.write(_picture(timeline, "svg"))


def _write_chrome(timeline: Timeline, file: BinaryIO) -> None:
    from teamster.spine.trace.render.chrome import to_chrome_json

    for piece in to_chrome_json(timeline):
        file.write(piece.encode())


def _write_perfetto(timeline: Timeline, file: BinaryIO) -> None:
    from teamster.spine.trace.render.perfetto import to_pftrace

    file.write(to_pftrace(timeline))


_WRITERS: dict[str, Callable[[Timeline, BinaryIO], None]] = {
    ".html": _write_page,
    ".png": _write_png,
    ".svg": _write_svg,
    ".json": _write_chrome,
    ".pftrace": _write_perfetto,
}


def plot(source: Any) -> Figure:
    """Draw the classic picture: workers as lanes, tasks as bars against seconds.

    Args:
        source: a `Report` (its batches), a `Recording` or a `Timeline` (every item).

    Returns:
        A matplotlib figure; notebooks show it.

    Raises:
        UsageError: it has no timeline, or matplotlib is not installed.

    Example:
        >>> import teamster as ts
        >>> with ts.Pool("thread", workers=2) as pool:
        ...     _ = pool.map(abs, range(10))
        >>> figure = ts.plot(pool.report())
    """
    timeline = source if isinstance(source, Timeline) else getattr(source, "timeline", None)
    if not isinstance(timeline, Timeline):
        raise UsageError(
            f"a report, a recording or a timeline can be drawn, not {type(source).__name__} "
            f"{source!r:.60}"
        )
    _check_matplotlib()
    from teamster.spine.trace.render.picture import to_figure

    return to_figure([(timeline.jobs[0].title if timeline.jobs else "", timeline)])


def _picture(timeline: Timeline, ending: str) -> bytes:
    from teamster.spine.trace.render.picture import to_picture

    return to_picture(plot(timeline), ending)


def png_of(timeline: Timeline) -> bytes | None:
    """The picture for a notebook; None where there is none to draw, or nothing to draw it with."""
    try:
        return _picture(timeline, "png") if timeline.lanes else None
    except UsageError:
        return None


def html_of(timeline: Timeline, text: str) -> str:
    """Text and picture for a notebook."""
    try:
        picture = _picture(timeline, "svg").decode() if timeline.lanes else ""
    except UsageError:
        picture = ""
    return f"<pre>{html.escape(text)}</pre>{picture[max(0, picture.find('<svg')) :]}"
