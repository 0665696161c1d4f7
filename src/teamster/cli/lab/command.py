# SPDX-License-Identifier: BSD-3-Clause
"""``teamster lab``: the four classic experiments on this machine, and a report to learn from.

::

    names, folder --check--> conducting: experiments --> runs: every way --> Lab
    Lab --> report: page and pictures
        --> tables on stdout, or JSON
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TextIO

from teamster.cli.inputs import add_output_argument
from teamster.cli.lab.experiments import EXPERIMENTS
from teamster.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from teamster.cli.lab.conducting import Lab
    from teamster.cli.lab.runs import Outcome, Sizes


# Seconds of the plain loop, rounds, seconds at most; some four minutes on two cores
_FULL = 3.0, 3, 300.0
_QUICK = 1.3, 1, 45.0  # some forty seconds on two cores

DESCRIPTION = (
    "Download a list of URLs (from a server on this machine), write large text "
    "files, run a loop in pure Python, and multiply matrices with NumPy; each in a plain loop, "
    "in threads, in processes and as backend='auto' chooses. Takes some minutes, and writes a "
    "page with what one would expect, what was measured, and why."
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what ``teamster lab`` can be told.

    Args:
        parser: the command's own.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> add_options(parser)
        >>> parser.parse_args(["--quick"]).output
        'teamster-lab'
    """
    add_output_argument(
        parser,
        "--out",
        metavar="FOLDER",
        default="teamster-lab",
        help="write the report into this folder (default: %(default)s)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="less of it, and each way once: under a minute"
    )
    parser.add_argument(
        "--only",
        metavar="NAMES",
        help=f"experiments with commas between them, of: {','.join(EXPERIMENTS)}",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object on stdout, and the tables on stderr",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the experiments, write the report, and print the tables.

    Args:
        arguments: The parsed arguments.

    Returns:
        0, or 1 when an input failed.

    Raises:
        UsageError: the command line makes no sense, the folder cannot be written, or matplotlib is
            missing.

    Example:
        >>> from teamster.cli.main import main
        >>> main(["lab", "--only", "upload"])
        2
    """
    from teamster.cli.lab.runs import Sizes

    names = _names(arguments.only)
    if find_spec("matplotlib") is None:
        raise UsageError("the pictures of a lab need matplotlib: pip install 'teamster[plot]'")
    sizes = Sizes(*(_QUICK if arguments.quick else _FULL))
    return run_lab(names, Path(arguments.output), sizes, as_json=arguments.json)


def run_lab(names: list[str], folder: Path, sizes: Sizes, *, as_json: bool = False) -> int:
    """Do what `run` does, with a size of one's own.

    Args:
        names: Keys of `EXPERIMENTS`.
        folder: Where to write the report.
        sizes: How much of it.
        as_json: Print JSON on stdout, and the tables on stderr.

    Returns:
        0, or 1 when an input failed.

    Raises:
        UsageError: the folder cannot be written.

    Example:
        >>> from teamster.cli.lab.runs import Sizes
        >>> run_lab(["loop"], Path("/proc/lab"), Sizes(0.0, 1))
        Traceback (most recent call last):
        teamster.errors.UsageError: the report cannot be written to '/proc/lab': ...
    """
    from teamster.cli.lab.conducting import conduct
    from teamster.cli.lab.report import write_report

    with _prepared(folder):
        lab = conduct(names, folder, sizes, _tell)
        _tell("the report")
        files = write_report(lab, folder)
    _tell("")
    print_tables(lab, sys.stderr if as_json else sys.stdout)
    print(f"The report: {files[0].resolve()}", file=sys.stderr if as_json else sys.stdout)
    if as_json:
        print(
            json.dumps(
                {**lab.to_dict(), "files": [str(each.resolve()) for each in files]}, indent=2
            )
        )
    return (
        1 if any(each.run.failed for outcome in _outcomes(lab) for each in outcome.measured) else 0
    )


def _names(text: str | None) -> list[str]:
    if text is None:
        return list(EXPERIMENTS)
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in EXPERIMENTS:
            raise UsageError(
                f"--only takes names of {', '.join(EXPERIMENTS)} with commas between them; there "
                f"is no {name!r}"
            )
    return [name for name in EXPERIMENTS if name in names]


@contextmanager
def _prepared(folder: Path) -> Iterator[None]:
    """A folder that can be written.

    When there is no report after all, what was made for it goes again.
    """
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        _remove_empty(made)
        raise UsageError(
            f"the report cannot be written to {str(folder)!r}: {error.strerror}"
        ) from None
    try:
        yield
    except BaseException:
        _tell("")
        _remove_empty(made)
        raise


def _remove_empty(folders: list[Path]) -> None:
    for each in folders:
        with suppress(OSError):
            each.rmdir()


def _tell(text: str) -> None:
    """What goes on now, on one line of a terminal that the next one takes; empty for none."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}{' ...' * bool(text)}", end="", file=sys.stderr, flush=True)


def _outcomes(lab: Lab) -> list[Outcome]:
    return [outcome for result in lab.results for outcome in result.outcomes]


def print_tables(lab: Lab, file: TextIO) -> None:
    """Print a table for each experiment.

    Args:
        lab: What was measured.
        file: Where to.

    Example:
        >>> from teamster.cli.lab.conducting import conduct
        >>> from teamster.cli.lab.runs import Sizes
        >>> print_tables(conduct([], Path("."), Sizes(0.0, 1), print), sys.stdout)
    """
    from teamster.cli.lab.words import describe_others

    for result in lab.results:
        if result.skipped:
            print(f"{result.experiment.title}: skipped. {result.skipped}\n", file=file)
        for outcome in result.outcomes:
            label = f", {outcome.case.label}" if outcome.case.label else ""
            print(f"{result.experiment.title}{label}: {outcome.items} inputs", file=file)
            _print_table(outcome, file)
    if disturbed := describe_others(_outcomes(lab)):
        print(f"{disturbed}\n", file=file)


def _print_table(outcome: Outcome, file: TextIO) -> None:
    from teamster.cli.lab.words import judge
    from teamster.units import show_seconds

    print(
        f"  {'':20}{'time':>10}{'speed-up':>10}{'expected':>10}"
        f"{'processors':>12}{'first result':>14}",
        file=file,
    )
    for each in outcome.measured:
        run, verdict = each.run, judge(outcome, each)
        expected = "" if each is outcome.loop else f"{each.expected:.3g}"
        word = {"less": "slower than expected", "more": "faster than expected"}.get(
            verdict.word, ""
        )
        line = (
            f"  {run.name:20}{run.seconds:>8.3g} "
            f"s{outcome.speedup(each):>10.2f}{expected:>10}{run.cpu:>12.2f}"
        )
        failed = f"   {run.failed:,} failed" if run.failed else ""
        print(f"{line}{show_seconds(run.first_s):>14}   {word}{failed}".rstrip(), file=file)
    print(file=file)
