# SPDX-License-Identifier: BSD-3-Clause
"""``teamster compare pkg.mod:func INPUT...``: the same inputs under every kind of workers, side by side."""

from __future__ import annotations

import argparse
import json
import sys
from itertools import islice
from typing import Any

from teamster.cli.inputs import choose_inputs, load_function
from teamster.errors import UsageError
from teamster.machine.cpus import usable_cores
from teamster.machine.memory import format_bytes
from teamster.tasks.comparing import Candidate, Run, candidates, recommend, run_one
from teamster.tasks.pool import Pool

HELP = "run a function over files or lines in every way, and say which is best"


def add_parser(subparsers: Any) -> None:
    """Add ``teamster compare``.

    Args:
        subparsers: What ``add_subparsers`` returned.

    Example:
        >>> import argparse
        >>> parser = argparse.ArgumentParser()
        >>> add_parser(parser.add_subparsers())
        >>> parser.parse_args(["compare", "os.path:getsize", ".", "--limit", "9"]).limit
        9
    """
    parser = subparsers.add_parser(
        "compare",
        help=HELP,
        description="Call a function with the same inputs in a plain loop, in threads, in processes and as backend='auto' chooses."
        " The function runs SEVERAL TIMES for each input, in this process too: give it inputs for which that does no harm.",
    )
    parser.add_argument("function", help="package.module:function; modules of the current folder are found, too")
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="files, folders (with all files below them), or - for lines of stdin"
    )
    parser.add_argument("--glob", default="*", metavar="PATTERN", help="of a folder take files that match, e.g. '*.py'")
    parser.add_argument("--workers", metavar="N,N", help="numbers of workers to try, for threads and processes alike")
    parser.add_argument("--limit", type=int, metavar="N", help="take the first N inputs only")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="for all runs together; each is cut off at its share")
    parser.add_argument("--json", action="store_true", help="print one JSON object; times in seconds, sizes in bytes")
    parser.set_defaults(run=run)


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
    ways = candidates(usable_cores(), _counts(arguments.workers))
    function = load_function(arguments.function)
    inputs = list(islice(choose_inputs(arguments.inputs, arguments.glob), arguments.limit))
    if not inputs:
        raise UsageError("there is no input")
    runs = _run_all(function, inputs, ways, arguments.budget)
    _show(runs, len(inputs), as_json=arguments.json)
    return 1 if any(each.failed for each in runs) else 0


def _counts(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        counts = sorted({int(word) for word in text.split(",")})
    except ValueError:
        counts = [0]
    if counts[0] < 1:
        raise UsageError(f"--workers takes numbers from 1 on with commas between them, as in 2,4,8; not {text!r}")
    return counts


def _run_all(function: Any, inputs: list[str], ways: list[Candidate], budget: float | None) -> list[Run]:
    """One after the other. What the loop does in its share of the budget is what the others get to do."""
    share = None if budget is None else budget / len(ways)
    with Pool("process", 1) as first:  # starts what serves all process pools of a program, which the first would pay for
        first.map(abs, [0])
    runs: list[Run] = []
    for number, way in enumerate(ways, 1):
        _tell(f"{number} of {len(ways)}: {way[0]}{f'({way[1]})' if way[1] and way[0] != 'serial' else ''} ...")
        runs.append(run_one(function, inputs, way, share))
        inputs = inputs[: runs[0].items]
    _tell("")
    return runs


def _tell(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _show(runs: list[Run], given: int, *, as_json: bool) -> None:
    chosen, sentence = recommend(runs)
    if as_json:
        facts = {"inputs": given, "runs": [each.to_dict() for each in runs], "recommended": chosen.to_dict(), "sentence": sentence}
        print(json.dumps(facts, indent=2))
        return
    most = max(each.items for each in runs)
    print(f"{most:,} of {given:,} inputs, start of the workers included\n")
    print(f"{'':16}{'time':>10}{'items/s':>12}{'speed-up':>10}{'first result':>14}{'processors':>12}{'memory':>12}")
    for each in runs:
        speedup = each.items_per_s / runs[0].items_per_s
        cut = f"   cut off at {each.items:,}" if each.items < most else ""
        failed = f"   {each.failed:,} failed" if each.failed else ""
        print(
            f"{each.name:16}{each.seconds:>8.3g} s{each.items_per_s:>12,.4g}{speedup:>10.2f}{each.first_s * 1e3:>11,.3g} ms"
            f"{each.cpu:>12.2f}{format_bytes(max(0, each.memory_bytes)):>12}{cut}{failed}"
        )
    print(f"\n{sentence}")
