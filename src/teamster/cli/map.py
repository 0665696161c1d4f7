# SPDX-License-Identifier: BSD-3-Clause
"""``teamster map pkg.mod:func INPUT...``: a function over files or lines, results as JSON lines.

::

    files, folders, lines -> (position, input) -> LineCall, in the workers -> a JSON line -> Journal
                                                     |
                                               what it raised -> --errors FILE, or a line on stderr
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from teamster.cli.inputs import (
    add_input_arguments,
    add_output_argument,
    choose_inputs,
    load_function,
)
from teamster.cli.journal import Journal, read_done
from teamster.errors import UsageError
from teamster.tasks.pool import Pool

Answer = tuple[str, str | None, dict[str, str] | None]
"""The input, its line of output, or what went wrong."""

DESCRIPTION = (
    "Call a function with each input (a path, or a line) and write one JSON line per result: "
    '{"input": ..., "result": ...}. Exit code 1 when an item failed, 2 when the command line '
    "makes no sense."
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what ``teamster map`` can be told.

    Args:
        parser: the command's own.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> add_options(parser)
        >>> parser.parse_args(["os.path:getsize", "."]).inputs
        ['.']
    """
    add_input_arguments(parser)
    add_output_argument(parser, metavar="FILE", help="write results here instead of to stdout")
    parser.add_argument(
        "--errors",
        metavar="FILE",
        help="write failed items here, with tracebacks; else a line each on stderr",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="skip inputs that have results in the output file already",
    )
    parser.add_argument(
        "--unordered",
        action="store_true",
        help="write results as they come, not in the order of the inputs",
    )
    _add_pool_options(parser)


def _add_pool_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--backend",
        default="auto",
        metavar="NAME",
        help="serial, thread, process or auto (the default)",
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="how many; one a usable core if left out"
    )
    parser.add_argument(
        "--chunksize",
        type=int,
        metavar="N",
        help="items handed over at a time; measured if left out",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="that one item may take before its worker is killed",
    )
    parser.add_argument(
        "--retries", type=int, default=0, metavar="N", help="run an item again when its worker died"
    )
    parser.add_argument(
        "--max-tasks", type=int, metavar="N", help="replace a worker after so many items"
    )
    parser.add_argument(
        "--start-method", metavar="NAME", help="forkserver (the default), spawn or fork"
    )
    parser.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="a bar on stderr; by default on a terminal only",
    )
    parser.add_argument(
        "--report", action="store_true", help="print what the workers did on stderr at the end"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the function over the inputs.

    Args:
        arguments: The parsed arguments.

    Returns:
        0, or 1 when an item failed.

    Raises:
        UsageError: the command line makes no sense.

    Example:
        >>> from teamster.cli.main import main
        >>> main(["map", "os.path:nosuch", "."])
        2
    """
    if arguments.resume and arguments.output is None:
        raise UsageError("--resume needs the file of the earlier run: -o FILE")
    function = load_function(arguments.function)
    inputs = _inputs(arguments)
    pool = Pool(
        backend=arguments.backend,
        workers=arguments.workers,
        retries=arguments.retries,
        timeout=arguments.timeout,
        max_tasks_per_worker=arguments.max_tasks,
        start_method=arguments.start_method,
        progress=arguments.progress,
    )
    with pool:
        failed = _write_answers(pool, function, inputs, arguments)
        if arguments.report:
            print(pool.report(), file=sys.stderr)
    return 1 if failed else 0


def _inputs(arguments: argparse.Namespace) -> Iterable[str]:
    """The inputs that are still to be done.

    It is a list where that can be, so that a bar knows the end.
    """
    source = choose_inputs(arguments.inputs, arguments.glob)
    done = read_done(arguments.output) if arguments.resume else Counter[str]()
    if not done:
        return source
    rest = _without(source, done)
    return list(rest) if isinstance(source, list) else rest


def _without(source: Iterable[str], done: Counter[str]) -> Iterator[str]:
    for item in source:
        if done[item]:
            done[item] -= 1
        else:
            yield item


class LineCall:
    """The user's function, made to answer with a line or with what it raised.

    This runs in the workers.
    """

    def __init__(self, function: Callable[[str], Any]) -> None:
        self._function = function

    def __call__(self, item: str) -> Answer:
        """Answer for one input."""
        try:
            result = self._function(item)
            return item, json.dumps({"input": item, "result": result}), None
        except Exception as error:
            return item, None, _describe(error)


def _describe(error: BaseException) -> dict[str, str]:
    text = "".join(
        traceback.format_exception(
            type(error), error, error.__traceback__ and error.__traceback__.tb_next
        )
    )
    return {"type": type(error).__name__, "error": str(error), "traceback": text}


class _Remembering:
    """Passes inputs on, and knows those that are on their way.

    An item comes back as its position only where its worker died.
    """

    def __init__(self, inputs: Iterable[str]) -> None:
        self._inputs = inputs
        self.pending: dict[int, str] = {}

    def __iter__(self) -> Iterator[str]:
        for position, item in enumerate(self._inputs):
            self.pending[position] = item
            yield item
            if position % 4096 == 0:
                self._forget(position)

    def _forget(self, position: int) -> None:
        for old in [known for known in self.pending if known < position - 200_000]:
            # These are far behind any read-ahead
            del self.pending[old]


class _SizedRemembering(_Remembering):
    def __len__(self) -> int:
        return len(self._inputs)  # type: ignore[arg-type]


def _write_answers(
    pool: Pool, function: Callable[[str], Any], inputs: Iterable[str], arguments: argparse.Namespace
) -> int:
    """Write every result and every failure; returns how many failed."""
    results = Journal(arguments.output, keep=arguments.resume)
    errors = Journal(arguments.errors, keep=arguments.resume) if arguments.errors else None
    items = _SizedRemembering(inputs) if isinstance(inputs, list) else _Remembering(inputs)
    mapped = pool.imap_unordered if arguments.unordered else pool.imap
    failed = 0
    try:
        for answer in mapped(
            LineCall(function), items, chunksize=arguments.chunksize, on_error="return"
        ):
            item, line, problem = _unpack(answer, items)
            if line is not None:
                results.write(line)
            else:
                failed += 1
                _write_problem(errors, item, problem or {})
    finally:
        results.close()
        if errors is not None:
            errors.close()
    return failed


def _unpack(answer: Any, items: _Remembering) -> Answer:
    if isinstance(answer, BaseException):  # the worker died, or the item took too long
        return items.pending.get(getattr(answer, "index", -1), "?"), None, _describe(answer)
    parts: Answer = answer
    return parts


def _write_problem(errors: Journal | None, item: str, problem: dict[str, str]) -> None:
    if errors is not None:
        errors.write(json.dumps({"input": item, **problem}))
    else:
        print(
            f"teamster: {item}: {problem['type']}: {' '.join(problem['error'].split())}",
            file=sys.stderr,
        )
