# SPDX-License-Identifier: BSD-3-Clause
"""``teamster top``: what the jobs of this user do right now, on a page that draws itself anew."""

from __future__ import annotations

import argparse
import codecs
import json
import math
import sys
import time
from typing import Any

from rich.console import Console
from rich.live import Live

from teamster.cli.top.jobs import Jobs, JobView
from teamster.cli.top.screen import Page, draw_once, draw_page
from teamster.cli.top.terminal import Terminal
from teamster.cli.top.words import make_plain
from teamster.errors import UsageError
from teamster.machine.cpus import usable_cores

_GLANCE_S = 0.25  # how soon a page follows when its terminal changes its size
_PATIENCE_S = 1.0  # for answers, when there is one look only
_STEPS = {
    "up": (-1, 0),
    "k": (-1, 0),
    "down": (1, 0),
    "j": (1, 0),
    "left": (0, -1),
    "right": (0, 1),
    "tab": (0, 1),
}

DESCRIPTION = (
    "Show the jobs of this user that use Teamster: workers, what each of them "
    "does, progress, memory. A job can be seen when one of its calls has lasted for a second. "
    "Looking does not change what a job does."
)
EPILOG = "Keys: q quits, p pauses, ? explains the others."


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what ``teamster top`` can be told.

    Args:
        parser: the command's own.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> add_options(parser)
        >>> parser.parse_args(["--once"]).once
        True
    """
    parser.add_argument(
        "--interval",
        type=float,
        default=0.5,
        metavar="SECONDS",
        help="time between two looks (default: 0.5)",
    )
    parser.add_argument(
        "--once", action="store_true", help="print what there is after one interval, and exit"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print that as one JSON object; times in seconds, sizes in bytes",
    )
    parser.add_argument("--pid", type=int, metavar="PID", help="show this process only")


def run(arguments: argparse.Namespace) -> int:
    """Show the jobs, once or until the user presses q.

    Args:
        arguments: The parsed arguments.

    Returns:
        0.

    Raises:
        UsageError: the command line makes no sense.

    Example:
        >>> from teamster.cli.main import main
        >>> main(["top", "--interval", "0"])
        2
    """
    if not 0.05 <= arguments.interval < math.inf:
        raise UsageError(f"--interval must be at least 0.05 seconds, not {arguments.interval:g}")
    if arguments.pid is not None and arguments.pid < 1:
        raise UsageError(f"--pid must be the number of a process, not {arguments.pid}")
    jobs = Jobs(pid=arguments.pid)
    try:
        if arguments.json:
            print(
                json.dumps(
                    {"jobs": [_facts(job) for job in _look_twice(jobs, arguments.interval)]},
                    indent=2,
                )
            )
            return 0
        _allow_plain_output()
        console = Console(highlight=False)
        if arguments.once or not console.is_terminal or console.is_dumb_terminal:
            views = _look_twice(jobs, arguments.interval)
            console.print(
                draw_once(
                    views, usable_cores(), console.width, _problem(jobs, views, arguments.pid)
                )
            )
            return 0
        with Terminal() as terminal:
            _watch(jobs, console, terminal, arguments)
    finally:
        jobs.close()
    return 0


def _problem(jobs: Jobs, views: list[JobView], pid: int | None) -> str:
    if pid is not None and not views and not jobs.problem:
        return f"process {pid} is no job that can be looked at"
    return jobs.problem


def _look_twice(jobs: Jobs, interval: float) -> list[JobView]:
    """Rates need two looks."""
    if not jobs.look(_PATIENCE_S):
        return []
    time.sleep(interval)
    return jobs.look(_PATIENCE_S)


def _watch(jobs: Jobs, console: Console, terminal: Terminal, arguments: argparse.Namespace) -> None:
    page, views = Page(), list[JobView]()
    while True:
        with Live(
            console=console,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        ) as live:
            due_s = 0.0
            while not terminal.stops:
                if time.monotonic() >= due_s:
                    due_s = time.monotonic() + arguments.interval
                    views = views if page.paused else jobs.look(min(0.2, arguments.interval))
                size, problem = console.size, _problem(jobs, views, arguments.pid)
                live.update(
                    draw_page(views, page, usable_cores(), size.width, size.height, problem),
                    refresh=True,
                )
                keys = _await_keys(terminal, console, due_s)
                if "q" in keys:
                    return
                for key in keys:
                    _obey(key, page, views)
        terminal.stop()


def _await_keys(terminal: Terminal, console: Console, due_s: float) -> list[str]:
    """Wait until keys are pressed, the size has changed, or the next look is due."""
    size = console.size
    while (left_s := due_s - time.monotonic()) > 0 and console.size == size and not terminal.stops:
        if keys := terminal.read(min(left_s, _GLANCE_S)):
            return keys
    return []


def _obey(key: str, page: Page, views: list[JobView]) -> None:
    if key in ("p", " "):
        page.paused = not page.paused
    elif key == "w":
        page.workers = not page.workers
    elif key in ("?", "h"):
        page.help = not page.help
    elif key in _STEPS:
        page.move(views, *_STEPS[key])


def _facts(job: JobView) -> dict[str, Any]:
    """What a job said, and what follows from it."""
    pools = [
        {
            "title": pool.seen.title,
            "items_per_s": pool.items_per_s,
            "in_use": pool.used,
            "calls": [
                {
                    "function": call.seen.function,
                    "items_per_s": call.items_per_s,
                    "left_s": call.left_s,
                }
                for call in pool.calls
            ],
        }
        for pool in job.pools
    ]
    said = job.answer.raw if job.answer is not None else None
    return {
        "pid": job.pid,
        "problem": job.problem,
        "quiet_s": job.quiet_s,
        "age_s": job.age_s,
        "rates": pools,
        "answer": said,
    }


def _allow_plain_output() -> None:
    """Where the output knows ASCII only, a block is a #, and not an error."""

    def replace(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeEncodeError)
        return make_plain(error.object[error.start : error.end]), error.end

    codecs.register_error("teamster", replace)
    if reconfigure := getattr(sys.stdout, "reconfigure", None):
        # Not there where the program has replaced stdout
        reconfigure(errors="teamster")
