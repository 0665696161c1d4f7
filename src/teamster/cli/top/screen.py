# SPDX-License-Identifier: BSD-3-Clause
"""The page of ``teamster top``: jobs, the pools of one of them, the workers of one of those.

::

    teamster top   2 jobs   12:34:56   load 1.20 on 2 cores  header
      PID  TIME  ITEMS/S  DONE  MEMORY    COMMAND
    > 123   7 s   38.9/s   34%  45.2 MiB  job.py             a line for each job
      124   9 s    2.0/s   81%  33.0 MiB  other.py
    -- process(2) ---------------------------------          the selected pool: what it is, and why
    f  ======-------  136/400  34%  38.9/s  7 s left         a line for each of its calls
    in use ######---- 62%   queue 12   1 death
    ##.#  3 running, 1 idle                                  every worker, a cell each
    WORKER     PID  STATE    ITEM  FOR   DONE  BUSY          as many of them as there are lines left
    q quit ...                                               keys

Everything is lines of text that are counted: what does not fit is left out here, knowing what it
is, and not cut off by a terminal.
"""

from __future__ import annotations

import os
import socket
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from teamster.cli.top.jobs import JobView
from teamster.cli.top.parts import (
    NARROW,
    count_states,
    draw_call,
    draw_strip,
    draw_workers,
    flow,
    pick_workers,
    tell_pool,
)
from teamster.cli.top.rates import PoolView
from teamster.cli.top.words import say_done, say_rate, say_seconds
from teamster.units import show_bytes

NO_JOB = "no job of yours is running; jobs show up here after a second"

_MOST_CALLS = 4  # lines for one pool: the workers are below
_FOLDED = 16  # workers that are shown where there is no end to the page
_HELP = (
    ("q", "quit"),
    ("p space", "pause: the page stands still, the jobs do not"),
    ("up down k j", "select a job"),
    ("left right tab", "select a pool of it"),
    ("w", "show or hide the table of workers"),
    ("?", "this page"),
    ("", ""),
    ("items/s", "over the last 5 seconds, or as far back as it takes to see 5 items"),
    ("in use", "share of the workers that run something, over the last 5 seconds"),
    ("queue", "items that were handed to workers and are not done"),
    ("busy", "share of the pool's time for which a worker ran items that are done"),
    ("for", "on this item; in colour when it takes far longer than others did"),
    ("█ ▓ ▒ ·", "a worker that runs, loads its function, starts, is idle"),
)


@dataclass(slots=True)
class Page:
    """What is being looked at.

    Attributes:
        pid: of the job that is selected.
        pool: the name of its pool that is selected.
        workers: whether the table of workers is shown.
        paused: whether the page stands still.
        help: whether the keys are explained instead.

    Example:
        >>> Page().workers
        True
    """

    pid: int = 0
    pool: str = ""
    workers: bool = True
    paused: bool = False
    help: bool = False

    def settle(self, jobs: Sequence[JobView]) -> None:
        """Select something that is there.

        Args:
            jobs: what is there.
        """
        if jobs and self.pid not in [job.pid for job in jobs]:
            self.pid = jobs[0].pid
        pools = next((job.pools for job in jobs if job.pid == self.pid), ())
        if pools and self.pool not in [pool.seen.name for pool in pools]:
            self.pool = next((pool for pool in pools if pool.calls), pools[0]).seen.name

    def move(self, jobs: Sequence[JobView], job_steps: int, pool_steps: int) -> None:
        """Select another one.

        Args:
            jobs: what is there.
            job_steps: how many jobs further down.
            pool_steps: how many pools further on; after the last comes the first.
        """
        pids = [job.pid for job in jobs]
        if job_steps and self.pid in pids:
            self.pid = pids[min(len(pids) - 1, max(0, pids.index(self.pid) + job_steps))]
            self.pool = ""
        names = [pool.seen.name for job in jobs if job.pid == self.pid for pool in job.pools]
        if pool_steps and self.pool in names:
            self.pool = names[(names.index(self.pool) + pool_steps) % len(names)]
        self.settle(jobs)


def draw_page(
    jobs: Sequence[JobView], page: Page, cores: int, width: int, height: int, problem: str = ""
) -> RenderableType:
    """The page, which has as many lines as the terminal, or fewer.

    Args:
        jobs: what is known of them.
        page: what is being looked at.
        cores: that can be used here.
        width: of the terminal, in cells.
        height: of the terminal, in lines.
        problem: why there may be more jobs than these.

    Returns:
        Something that rich draws.

    Example:
        >>> from rich.console import Console
        >>> Console(width=80).print(draw_page([], Page(), 2, 80, 24))
        teamster top  no jobs ...
    """
    page.settle(jobs)
    lines: list[RenderableType] = [_header(jobs, cores, width, page.paused)]
    if page.help:
        lines += _help(width)[: height - 2]
    else:
        lines += _wrap(problem, width, "yellow")
        lines += (
            _job_lines(jobs, page.pid, width, max(1, (height - 8) // 3))
            if jobs
            else [Text(), *_wrap(NO_JOB, width, "dim")]
        )
        lines += _fill(
            [job for job in jobs if job.pid == page.pid], page, width, height - 1 - _height(lines)
        )
    return _Fitted(lines, _footer(page, width), height)


def draw_once(jobs: Sequence[JobView], cores: int, width: int, problem: str = "") -> Group:
    """All jobs below each other, for a file or for a user who reads it once.

    Args:
        jobs: what is known of them.
        cores: that can be used here.
        width: of a line, in cells.
        problem: why there may be more jobs than these.

    Returns:
        Something that rich draws.

    Example:
        >>> from rich.console import Console
        >>> Console(width=80).print(draw_once([], 2, 80))
        no job of yours is running; jobs show up here after a second
    """
    if not jobs:
        return Group(*_wrap(problem, width, "yellow"), Text(NO_JOB))
    lines: list[RenderableType] = [
        _header(jobs, cores, width, False),
        *_wrap(problem, width, "yellow"),
    ]
    lines += _job_lines(jobs, 0, width, len(jobs))
    for job in jobs:
        for pool in job.pools:
            lines += [
                Text(),
                *_pool_lines(job, pool, width, 64),
                *_worker_lines(pool, width, _FOLDED + 2),
            ]
    return Group(*lines)


class _Fitted:
    """Lines cut to the width of the terminal, filled up or cut to its height, and a last one."""

    def __init__(self, lines: Sequence[RenderableType], last: RenderableType, height: int) -> None:
        self._lines = lines
        self._last = last
        self._height = height

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """What rich calls."""
        options = options.update(no_wrap=True, overflow="ellipsis", height=None)
        drawn = console.render_lines(Group(*self._lines), options, pad=False)[: self._height - 1]
        drawn += [[] for _ in range(self._height - 1 - len(drawn))]
        for line in drawn:
            yield from line
            yield Segment.line()
        yield self._last


def _height(lines: Sequence[RenderableType]) -> int:
    return sum(
        line.row_count + line.show_header if isinstance(line, Table) else 1 for line in lines
    )


def _header(jobs: Sequence[JobView], cores: int, width: int, paused: bool) -> Text:
    count = f"{len(jobs)} job{'' if len(jobs) == 1 else 's'}" if jobs else "no jobs"
    pieces = ["teamster top", "PAUSED" if paused else count, time.strftime("%H:%M:%S")]
    pieces += [
        f"load {_load():.2f} on {cores} core{'' if cores == 1 else 's'}",
        socket.gethostname(),
    ]
    line = Text(pieces[0], style="bold white on blue", no_wrap=True)
    for piece in pieces[1:]:
        if line.cell_len + 2 + len(piece) <= width:
            line.append(f"  {piece}")
    line.pad_right(max(0, width - line.cell_len))
    return line


def _load() -> float:
    try:
        return os.getloadavg()[0]
    except OSError:
        return 0.0


def _wrap(text: str, width: int, style: str) -> list[RenderableType]:
    return [Text(line, style=style) for line in textwrap.wrap(text, width)]


def _footer(page: Page, width: int) -> Text:
    keys = [
        ("q", "quit"),
        ("p", "go on" if page.paused else "pause"),
        ("?", "back" if page.help else "help"),
    ]
    keys += [("w", "workers"), ("↑↓", "job"), ("←→", "pool")]
    line = Text(no_wrap=True, style="dim")
    for key, meaning in keys:
        if line.cell_len + len(key) + len(meaning) + 3 <= width:
            line.append(f" {key}", style="bold not dim").append(f" {meaning} ")
    return line


def _help(width: int) -> list[RenderableType]:
    lines: list[RenderableType] = [Text()]
    for name, meaning in _HELP:
        for number, part in enumerate(textwrap.wrap(meaning, max(10, width - 18)) or [""]):
            lines.append(Text.assemble((f" {name if not number else '':15}", "bold"), part))
    return lines


def _job_lines(
    jobs: Sequence[JobView], selected: int, width: int, most: int
) -> list[RenderableType]:
    """A line for each job; of many, those around the one that is selected."""
    table = Table(
        box=None,
        padding=(0, 2 if width >= NARROW else 1, 0, 0),
        pad_edge=False,
        expand=True,
        header_style="bold dim",
    )
    table.add_column("", min_width=1, max_width=1)
    columns = [("PID", 5), ("TIME", 7), ("ITEMS/S", 9), ("DONE", 6), ("MEMORY", 9)]
    for name, least in columns if width >= NARROW else (columns[0], columns[3]):
        table.add_column(name, justify="right", min_width=least, no_wrap=True)
    table.add_column("COMMAND", ratio=1, no_wrap=True, overflow="ellipsis")
    place = next((number for number, job in enumerate(jobs) if job.pid == selected), 0)
    first = min(max(0, place - most // 2), max(0, len(jobs) - most))
    for job in jobs[first : first + most]:
        cells = [str(job.pid), say_seconds(job.age_s), "", "", ""]
        if job.answer is not None:
            cells[2:] = [
                say_rate(job.items_per_s),
                _done(job),
                show_bytes(job.answer.memory_bytes),
            ]
        marker, style = ("▶", "bold") if job.pid == selected else (" ", "")
        shown = cells if width >= NARROW else (cells[0], cells[3])
        table.add_row(marker, *(Text(cell) for cell in shown), _command(job), style=style)
    lines: list[RenderableType] = [table]
    if len(jobs) > most:
        lines.append(Text(f"   … {len(jobs) - most:,} more", style="dim"))
    return lines


def _done(job: JobView) -> str:
    return say_done(call for pool in job.pools for call in pool.calls)


def _command(job: JobView) -> Text:
    command = job.answer.command or "python" if job.answer is not None else ""
    trouble = job.problem or ("not answering" if job.quiet else "")
    return Text.assemble((trouble, "bold yellow"), "  " if trouble and command else "", command)


def _fill(selected: Sequence[JobView], page: Page, width: int, room: int) -> list[RenderableType]:
    """The job that is selected, in the lines that are left."""
    for job in selected:
        for pool in job.pools:
            if pool.seen.name == page.pool:
                blank: list[RenderableType] = [Text()] if room >= 16 else []
                lines = [*blank, *_pool_lines(job, pool, width, room // 2, moves=not page.paused)]
                if page.workers and (left := room - _height(lines)) >= 2:
                    lines += _worker_lines(pool, width, left)
                return lines
    return []


def _pool_lines(
    job: JobView, pool: PoolView, width: int, room: int, *, moves: bool = True
) -> list[RenderableType]:
    """A pool without the table of its workers."""
    title = f"── {pool.seen.title} "
    if len(job.pools) > 1:
        number = [each.seen.name for each in job.pools].index(pool.seen.name) + 1
        title += f"· pool {number} of {len(job.pools)} "
    reason = textwrap.wrap(
        pool.seen.reason,
        width,
        max_lines=1 if room < 6 else 3 if width < NARROW else 2,
        placeholder=" …",
    )
    if len(reason) == 1 and len(title) + len(reason[0]) + 5 <= width:
        title += f"── {reason.pop()} "
    if job.quiet:
        title = f"{title[: width - 28]}── as it was {say_seconds(job.quiet_s)} ago "
    lines: list[RenderableType] = [
        Text(title + "─" * max(0, width - len(title)), style="bold blue", no_wrap=True)
    ]
    lines += [Text(line, style="dim") for line in reason]
    lines += [draw_call(call, width, moves=moves) for call in pool.calls[:_MOST_CALLS]]
    if len(pool.calls) > _MOST_CALLS:
        lines.append(Text(f"… {len(pool.calls) - _MOST_CALLS} more calls", style="dim"))
    lines += flow(tell_pool(pool), width)
    there = [worker for worker in pool.seen.workers if worker.state != "absent"]
    states = flow(count_states(there), width, ", ")
    if 0 < len(there) <= width - 2 - states[0].cell_len and len(states) == 1:
        return [*lines, Text.assemble(*draw_strip(there, width, 1), "  ", states[0])]
    return [*lines, *states, *draw_strip(there, width, max(1, room // 4))]


def _worker_lines(pool: PoolView, width: int, room: int) -> list[RenderableType]:
    """The table, and a line about those that are not in it."""
    there = sum(worker.state != "absent" for worker in pool.seen.workers)
    if not there:
        return []
    shown = pick_workers(pool.seen.workers, room - 1 if there <= room - 1 else room - 2)
    lines: list[RenderableType] = [draw_workers(pool.seen, shown, width)] if shown else []
    if there > len(shown):
        lines.append(Text(f"… {there - len(shown):,} more, which are less remarkable", style="dim"))
    return lines
