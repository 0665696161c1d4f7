# SPDX-License-Identifier: BSD-3-Clause
"""``teamster compare pkg.mod:func INPUT...``: the same inputs under every kind of workers.

The results stand side by side.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from itertools import islice
from typing import Any

from teamster.cli.inputs import (
    add_input_arguments,
    add_output_argument,
    choose_inputs,
    load_function,
)
from teamster.cli.ways import Candidate, Run, candidates, characterize, recommend, run_one
from teamster.errors import UsageError
from teamster.kinds import label
from teamster.machine.cpus import usable_cores
from teamster.machine.gil import GilSampler, GilShare
from teamster.spine.trace.export import check_path, write_whole
from teamster.tasks.pool import Pool
from teamster.units import show_bytes

DESCRIPTION = (
    "Call a function with the same inputs in a plain loop, in threads, in "
    "processes and as backend='auto' chooses. The function runs SEVERAL TIMES for each input, "
    "in this process too: give it inputs for which that does no harm."
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what ``teamster compare`` can be told.

    Args:
        parser: the command's own.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> add_options(parser)
        >>> parser.parse_args(["os.path:getsize", ".", "--limit", "9"]).limit
        9
    """
    add_input_arguments(parser)
    parser.add_argument(
        "--workers",
        metavar="N,N",
        help="numbers of workers to try, for threads and processes alike",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="take the first N inputs only")
    parser.add_argument(
        "--budget",
        type=float,
        metavar="SECONDS",
        help="for all runs together; each is cut off at its share",
    )
    add_output_argument(
        parser,
        "--html",
        metavar="FILE",
        help="write a page (.html) with the timelines of all ways, one above the other",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object; times in seconds, sizes in bytes",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run every candidate and print the table.

    Args:
        arguments: The parsed arguments.

    Returns:
        0, or 1 when an item failed.

    Raises:
        UsageError: the command line makes no sense.

    Example:
        >>> from teamster.cli.main import main
        >>> main(["compare", "os.path:getsize", ".", "--limit", "0"])
        2
    """
    for name in ("limit", "budget"):
        value = getattr(arguments, name)
        if value is not None and not value > 0:
            raise UsageError(f"--{name} must be more than 0, not {value}")
    if arguments.output is not None:
        check_page(arguments.output)
    ways = candidates(usable_cores(), _counts(arguments.workers))
    function = load_function(arguments.function)
    inputs = list(islice(choose_inputs(arguments.inputs, arguments.glob), arguments.limit))
    if not inputs:
        raise UsageError("there is no input")
    runs, share = _run_all(
        function, inputs, ways, arguments.budget, recorded=arguments.output is not None
    )
    if arguments.output is not None:
        _write_page(arguments.output, arguments.function, runs, share, len(inputs))
    if arguments.json:
        _print_json(runs, share, len(inputs))
    else:
        _print_table(runs, share, len(inputs))
    return 1 if any(each.failed for each in runs) else 0


def _counts(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        counts = sorted({int(word) for word in text.split(",")})
    except ValueError:
        counts = [0]
    if counts[0] < 1:
        raise UsageError(
            f"--workers takes numbers from 1 on with commas between them, as in 2,4,8; not {text!r}"
        )
    return counts


def _run_all(
    function: Any, inputs: list[str], ways: list[Candidate], budget: float | None, *, recorded: bool
) -> tuple[list[Run], GilShare | None]:
    """Run one way after the other.

    What the loop does in its share of the budget is what the others get to do.
    """
    share_s = None if budget is None else budget / len(ways)
    with Pool("process", 1) as first:
        # Starts what serves all process pools of a program, which the first would pay for
        first.map(abs, [0])
    _tell(1, ways)
    with GilSampler() as sampler:
        runs = [run_one(function, inputs, ways[0], share_s, recorded=recorded)]
    inputs = inputs[: runs[0].items]
    for number, way in enumerate(ways[1:], 2):
        _tell(number, ways)
        runs.append(run_one(function, inputs, way, share_s, recorded=recorded))
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    return runs, sampler.share()


def _tell(number: int, ways: list[Candidate]) -> None:
    if sys.stderr.isatty():
        backend, workers = ways[number - 1]
        name = label(backend, workers)
        print(f"\r\033[K{number} of {len(ways)}: {name} ...", end="", file=sys.stderr, flush=True)


def _print_json(runs: list[Run], share: GilShare | None, given: int) -> None:
    chosen, sentence = recommend(runs)
    facts = {
        "inputs": given,
        "runs": [each.to_dict() for each in runs],
        "gil": None if share is None else asdict(share),
        "recommended": chosen.to_dict(),
        "sentence": sentence,
    }
    print(json.dumps(facts, indent=2))


_HEAD = ("", "time", "items/s", "speed-up", "first result", "processors", "memory", "")
_WIDTHS = (16, 10, 12, 10, 14, 12, 12)  # characters of each column: 86 in all, and a note


def _table(runs: list[Run]) -> list[tuple[str, ...]]:
    """A row for each run, below the head."""
    most, loop = max(each.items for each in runs), runs[0]
    rows: list[tuple[str, ...]] = [_HEAD]
    for each in runs:
        cut = f"cut off at {each.items:,}" if each.items < most else ""
        failed = f"{each.failed:,} failed" if each.failed else ""
        rows.append((
            each.name,
            f"{each.seconds:.3g} s",
            f"{each.items_per_s:,.4g}",
            f"{each.items_per_s / loop.items_per_s:.2f}",
            f"{each.first_s * 1e3:,.3g} ms",
            f"{each.cpu:.2f}",
            show_bytes(max(0, each.memory_bytes)),
            "   ".join(filter(None, (cut, failed))),
        ))  # fmt: skip
    return rows


def _sentences(runs: list[Run], share: GilShare | None) -> list[str]:
    """What kind of work it is, and what to take."""
    return [sentence for sentence in (characterize(runs[0], share), recommend(runs)[1]) if sentence]


def _print_table(runs: list[Run], share: GilShare | None, given: int) -> None:
    print(f"{_counted(runs, given)}\n")
    for name, *cells, note in _table(runs):
        aligned = "".join(
            f"{cell:>{width}}" for cell, width in zip(cells, _WIDTHS[1:], strict=True)
        )
        print(f"{name:{_WIDTHS[0]}}{aligned}{'   ' + note if note else ''}")
    print()
    for sentence in _sentences(runs, share):
        print(sentence)


def _counted(runs: list[Run], given: int) -> str:
    return (
        f"{max(each.items for each in runs):,} of {given:,} inputs, start of the workers included"
    )


def check_page(path: str) -> None:
    """Refuse a page that cannot be written, before anything runs.

    Args:
        path: where to.

    Raises:
        UsageError: it does not end in .html, or cannot be written.

    Example:
        >>> check_page("page.txt")
        Traceback (most recent call last):
        teamster.errors.UsageError: --output takes a file that ends in .html, not 'page.txt'
    """
    if not path.lower().endswith(".html"):
        raise UsageError(f"--output takes a file that ends in .html, not {path!r}")
    check_path(path)


def _write_page(
    path: str, function: str, runs: list[Run], share: GilShare | None, given: int
) -> None:
    """The timelines of all runs above each other, with the table."""
    from teamster.spine.trace.render.page import to_html

    timelines = [(each.name, each.timeline) for each in runs if each.timeline is not None]
    notes = [f"{function}: {_counted(runs, given)}.", *_sentences(runs, share)]
    page = to_html(timelines, title=f"teamster compare {function}", table=_table(runs), notes=notes)
    write_whole(path, page.encode())
