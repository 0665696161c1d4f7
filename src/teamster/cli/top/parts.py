# SPDX-License-Identifier: BSD-3-Clause
"""The parts of which the page of ``teamster top`` is put together.

They are bars, the strip and the table of workers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from teamster.cli.top.answers import PoolSeen, WorkerSeen
from teamster.cli.top.rates import CallView, PoolView
from teamster.cli.top.words import say_rate, say_seconds, say_share
from teamster.units import show_bytes

NARROW, WIDE = 60, 100
"""Below the first, columns are left out; from the second on, there is room for all."""

STYLES = {"running": "green", "loading": "cyan", "starting": "blue", "idle": "dim", "absent": "dim"}
_CELLS = {"running": "█", "loading": "▓", "starting": "▒", "idle": "·", "absent": " "}
# 0 is for a state that is not known, 1 for long items
_RANKS = {"loading": 2, "starting": 3, "running": 4, "idle": 5}
# What a user would wonder about; and no more than its neighbours take
_SLOW_S, _SLOW_TIMES = 2.0, 10.0
_COLUMNS: dict[str, tuple[Literal["left", "right"], int]] = {
    "WORKER": ("left", 11),
    "PID": ("right", 7),
    "STATE": ("left", 8),
    "ITEM": ("right", 8),
    "FOR": ("right", 6),
    "DONE": ("right", 7),
    "BUSY": ("right", 4),
    "MEMORY": ("right", 9),
    "RUNS": ("left", 0),
}


def make_bar(share: float, width: int, style: str) -> Text:
    """A bar of blocks.

    Args:
        share: 0 to 1.
        width: cells.
        style: of the full part.

    Returns:
        One line.

    Example:
        >>> make_bar(0.5, 4, "green").plain
        '██░░'
    """
    full = round(min(1.0, max(0.0, share)) * width)
    return Text.assemble(("█" * full, style), ("░" * (width - full), "dim"))


def draw_call(call: CallView, width: int, *, moves: bool = True) -> Table:
    """The progress of one call, on one line.

    Args:
        call: the call.
        width: of the page, in cells.
        moves: whether the bar of a call without an end may move.

    Returns:
        Something of one line.

    Example:
        >>> from teamster.cli.top.answers import CallSeen
        >>> draw_call(CallView(CallSeen("f", 1, 4, 1.0), 1.0, 3.0), 80).row_count
        1
    """
    seen = call.seen
    line = Table.grid(padding=(0, 2 if width >= NARROW else 1), expand=True)
    line.add_column(
        max_width=max(8, width // 4), min_width=4, no_wrap=True, overflow="ellipsis", style="bold"
    )
    line.add_column(ratio=1)
    ended = seen.total is not None and seen.done >= seen.total
    animation_s = None if moves else 0.0
    bar = ProgressBar(
        seen.total,
        min(seen.done, seen.total or 0),
        pulse=seen.total is None,
        complete_style="cyan",
        finished_style="green",
        pulse_style="cyan",
        animation_time=animation_s,
    )
    cells: list[tuple[str, int]] = [
        (f"{seen.done:,}" if seen.total is None else f"{seen.done:,}/{seen.total:,}", 11)
    ]
    if seen.total is not None:
        cells.append((say_share(seen.done, seen.total), 4))
    left = (
        "" if call.left_s is None else "0 s left" if ended else f"{say_seconds(call.left_s)} left"
    )
    cells += [(say_rate(call.items_per_s), 9), (left, 12)]
    if width < NARROW:
        cells = [cells[1] if seen.total is not None else cells[0], (say_rate(call.items_per_s), 6)]
    for _, least in cells:
        line.add_column(justify="right", min_width=least, no_wrap=True)
    line.add_row(Text(seen.function), bar, *(Text(cell) for cell, _ in cells))
    return line


def tell_pool(pool: PoolView) -> list[Text]:
    """What there is to say of a pool besides its calls.

    Args:
        pool: the pool.

    Returns:
        Pieces, to be put on as many lines as they need.

    Example:
        >>> from teamster.cli.top.answers import read_answer
        >>> from teamster.cli.top.rates import History
        >>> history = History()
        >>> history.add(read_answer(b'{"version": 1, "pools": [{"queue": 3, "deaths": 1}]}'))
        >>> [piece.plain for piece in tell_pool(history.pools[0])]
        ['in use ░░░░░░░░░░ 0%', 'queue 3', '0 items', '1 death']
    """
    seen = pool.seen
    pieces = [
        Text.assemble("in use ", make_bar(pool.used, 10, "green"), f" {pool.used:.0%}"),
        Text(f"queue {seen.queue:,}"),
    ]
    if not pool.calls or len(pool.calls) > 1:
        pieces.append(Text(f"{seen.items:,} items"))
    if len(pool.calls) > 1:
        pieces.append(Text(say_rate(pool.items_per_s)))
    if seen.moved_bytes:
        pieces.append(Text(f"moved {show_bytes(seen.moved_bytes)}"))
    for count, one, many, style in (
        (seen.failures, "failure", "failures", "bold red"),
        (seen.deaths, "death", "deaths", "bold red"),
        (seen.timeouts, "timeout", "timeouts", "bold red"),
        (seen.retries, "retry", "retries", "yellow"),
    ):
        if count:
            pieces.append(Text(f"{count:,} {one if count == 1 else many}", style=style))
    return pieces


def flow(pieces: Sequence[Text], width: int, gap: str = "   ") -> list[Text]:
    """Put pieces on lines, none of them broken.

    Args:
        pieces: what to put.
        width: of a line, in cells.
        gap: between two of them.

    Returns:
        The lines.

    Example:
        >>> [line.plain for line in flow([Text("one"), Text("two"), Text("three")], 9)]
        ['one   two', 'three']
    """
    lines: list[Text] = []
    for piece in pieces:
        if lines and lines[-1].cell_len + len(gap) + piece.cell_len <= width:
            lines[-1].append(gap).append_text(piece)
        else:
            lines.append(piece.copy())
    return lines


def count_states(workers: Sequence[WorkerSeen]) -> list[Text]:
    """How many workers do what.

    Args:
        workers: of one pool.

    Returns:
        Such as "2 running" and "1 idle".

    Example:
        >>> [piece.plain for piece in count_states([])]
        ['no workers yet']
    """
    counts = Counter(worker.state or "unknown" for worker in workers if worker.state != "absent")
    order = sorted(counts, key=lambda state: [*STYLES].index(state) if state in STYLES else -1)
    pieces = [
        Text(f"{counts[state]:,} {state}", style=STYLES.get(state, "bold red")) for state in order
    ]
    return pieces or [Text("no workers yet", style="dim")]


def draw_strip(workers: Sequence[WorkerSeen], width: int, most: int) -> list[Text]:
    """All workers, one cell each.

    Args:
        workers: of one pool.
        width: of a line, in cells.
        most: lines.

    Returns:
        The lines; the last one says how many found no place.

    Example:
        >>> draw_strip([], 80, 2)
        []
    """
    if width * most < len(workers):
        kept = max(0, width * most - 8)
        left = Text(f" +{len(workers) - kept:,}", style="dim")
        return [
            *draw_strip(workers[:kept], width, most)[:-1],
            *_strip_lines(workers[kept // width * width : kept], width, left),
        ]
    return _strip_lines(workers, width)


def _strip_lines(workers: Sequence[WorkerSeen], width: int, tail: Text | None = None) -> list[Text]:
    lines = []
    for first in range(0, len(workers), width):
        line = Text(no_wrap=True)
        for worker in workers[first : first + width]:
            line.append(_CELLS.get(worker.state, "?"), style=STYLES.get(worker.state, "bold red"))
        lines.append(line)
    if tail is not None:
        lines = lines or [Text()]
        lines[-1].append_text(tail)
    return lines


def pick_workers(workers: Sequence[WorkerSeen], room: int) -> list[WorkerSeen]:
    """Those that are worth a line.

    Args:
        workers: of one pool.
        room: lines.

    Returns:
        All in their order when there is room; else what is odd, the longest on one item, and what
        starts.

    Example:
        >>> pick_workers([], 3)
        []
    """
    there = [worker for worker in workers if worker.state != "absent"]
    if len(there) <= room:
        return there
    return sorted(there, key=_rank)[: max(0, room)]


def _rank(worker: WorkerSeen) -> tuple[int, int]:
    """Short items come and go: their workers keep their order, so that the table does not jump."""
    since_s = int(worker.since_s) if worker.works else 0
    return (1 if since_s else _RANKS.get(worker.state, 0)), -since_s


def draw_workers(pool: PoolSeen, workers: Sequence[WorkerSeen], width: int) -> Table:
    """A table of workers.

    Args:
        pool: theirs.
        workers: those to show.
        width: of the page, in cells.

    Returns:
        A line for each, and one above them.

    Example:
        >>> draw_workers(PoolSeen("0", "p", "", 0, 0, 0, 0, 0, 0, 0, 0, (), ()), [], 80).row_count
        0
    """
    table = Table(
        box=None,
        padding=(0, 2 if width >= NARROW else 1, 0, 0),
        pad_edge=False,
        header_style="bold dim",
    )
    processes = width >= NARROW and any(worker.pid for worker in pool.workers)
    names = ["WORKER", "STATE", "ITEM", "FOR"]
    if processes:
        names.insert(1, "PID")
    if width >= NARROW:
        names += ["DONE", "BUSY", *(["MEMORY"] if processes else [])]
    if width >= WIDE or (width >= NARROW and not processes):
        names.append("RUNS")
    for name in names:
        side, least = _COLUMNS[name]
        table.add_column(name, justify=side, min_width=least, no_wrap=True, overflow="ellipsis")
    mean_s = _mean_item_s(pool)
    for worker in workers:
        cells = _worker_cells(worker, pool, mean_s)
        table.add_row(*(cells[name] for name in names))
    return table


def _mean_item_s(pool: PoolSeen) -> float:
    items = sum(worker.items for worker in pool.workers)
    return sum(worker.busy_s for worker in pool.workers) / items if items else 0.0


def _worker_cells(worker: WorkerSeen, pool: PoolSeen, mean_s: float) -> dict[str, Text]:
    slow = worker.since_s > max(_SLOW_S, _SLOW_TIMES * mean_s) and mean_s > 0
    busy = min(1.0, worker.busy_s / pool.wall_s) if pool.wall_s > 0 else 0.0
    return {
        "WORKER": Text(worker.label),
        "PID": Text(str(worker.pid or "")),
        "STATE": Text(worker.state or "unknown", style=STYLES.get(worker.state, "bold red")),
        "ITEM": Text("" if worker.index is None else f"#{worker.index:,}"),
        "FOR": Text(
            say_seconds(worker.since_s) if worker.works else "", style="bold yellow" if slow else ""
        ),
        "DONE": Text(f"{worker.items:,}"),
        "BUSY": Text(f"{busy:.0%}"),
        "MEMORY": Text(show_bytes(worker.memory_bytes) if worker.memory_bytes else ""),
        "RUNS": Text(worker.function),
    }
