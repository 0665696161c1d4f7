# SPDX-License-Identifier: BSD-3-Clause
"""The frame of the program ``teamster``: which command, which exit code.

::

    argv --> the command's name --> import that file only --> parse --> run --> exit code

    0     done
    1     it ran, and something failed (a TeamsterError; a command may return it for failed items)
    2     it made no sense (bad options, a TeamsterError that is a ValueError, TypeError or
          LookupError)
    130   Ctrl-C
    141   no program reads the output any more (``teamster ... | head``); as if SIGPIPE had ended it

Whatever goes wrong for a reason that we know is one line on stderr; a traceback means a bug in
Teamster.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from contextlib import suppress

from teamster.errors import TaskError, TeamsterError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

COMMANDS = {
    # name: (module, help)
    "map": ("teamster.cli.map", "run a function over files or lines, results as JSON lines"),
    "compare": (
        "teamster.cli.compare",
        "run a function over files or lines in every way, and say which is best",
    ),
    "lab": (
        "teamster.cli.lab.command",
        "repeat the four classic experiments on this machine, and write a report",
    ),
    "serve": (
        "teamster.cli.serve",
        "serve a model behind HTTP, at the latency asked for",
    ),
    "load": ("teamster.cli.load", "ask a server for some time, and say how fast it answered"),
    "why": ("teamster.cli.why", "say why the slowest requests of a server were slow"),
    "top": ("teamster.cli.top.command", "watch the jobs that run: workers, progress, memory"),
    "machine": ("teamster.cli.machine", "show the cores, memory and GPUs that are really usable"),
}

# Exit codes: a mistake of the run, of the command line; 128 and the signal's number.
FAILED, USAGE, INTERRUPTED, BROKEN_PIPE = 1, 2, 130, 141


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that complains in one line.

    The parsers of the commands are of this class too.

    Example:
        >>> Parser(prog="teamster").parse_args([])
        Namespace()
    """

    def error(self, message: str) -> NoReturn:
        """Print one line instead of the whole usage, and exit with code 2.

        Args:
            message: What is wrong, as argparse says it.
        """
        self.exit(USAGE, f"{self.prog}: {' '.join(message.split())} (see {self.prog} --help)\n")

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """Print a line about arguments that it does not know, and exit with code 2.

        The line names the option that looks most like the first of them.

        Args:
            unknown: What `parse_known_args` left.
        """
        from difflib import get_close_matches

        word = unknown[0].partition("=")[0]
        if not word.startswith("-"):
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        near = get_close_matches(word, re.findall(r"(?<!\w)--?\w[\w-]*", self.format_help()), n=1)
        self.error(f"there is no option {word}" + (f"; did you mean {near[0]}?" if near else ""))


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        # Asked for once in a lifetime, and importing the metadata reader takes longer than a whole
        # `teamster machine`.
        from importlib.metadata import version

        print(f"teamster {version('teamster')}")
        parser.exit()


def build_parser(arguments: Sequence[str]) -> tuple[Parser, dict[str, Parser]]:
    """Make the parser for these arguments; only the command that they name is imported.

    Args:
        arguments: The command line without the program's name.

    Returns:
        A parser that knows every command's name and help, and the options of the one that is named;
        and the commands' own parsers.

    Example:
        >>> parser, commands = build_parser(["machine"])
        >>> parser.parse_args(["machine", "--json"]).command
        'machine'
    """
    parser = Parser(
        prog="teamster",
        description="Drive every core as one team.",
        epilog="teamster COMMAND --help tells more.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    wanted = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, (module, summary) in COMMANDS.items():
        if name == wanted:
            _add_command(commands, name, module, summary)
        else:
            commands.add_parser(name, help=summary)
    return parser, commands.choices


def _add_command(
    commands: argparse._SubParsersAction[Parser], name: str, module: str, summary: str
) -> None:
    """The head of every command: its file has a DESCRIPTION, `add_options` and `run`."""
    from importlib import import_module

    command = import_module(module)
    text, epilog = command.DESCRIPTION, getattr(command, "EPILOG", None)
    parser = commands.add_parser(name, help=summary, description=text, epilog=epilog)
    command.add_options(parser)
    parser.set_defaults(run=command.run)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The command line without the program's name; None takes it from ``sys.argv``.

    Returns:
        The exit code; the module's docstring lists them.

    Example:
        >>> main(["--version"])
        teamster ...
        0
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        code = _dispatch(arguments)
        # A closed pipe shows itself here, and not in the interpreter's last breath
        sys.stdout.flush()
    except TeamsterError as error:
        print(f"teamster: {' '.join(str(error).split())}", file=sys.stderr)
        return _code_of(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _forget_stdout()
        return BROKEN_PIPE
    return code


def _dispatch(arguments: list[str]) -> int:
    try:
        parser, commands = build_parser(arguments)
        parsed, unknown = parser.parse_known_args(arguments)
        if unknown:  # those in front of the command's name are no options of the command
            (
                commands[parsed.command]
                if unknown[0] in arguments[arguments.index(parsed.command) :]
                else parser
            ).refuse(unknown)
    except SystemExit as ended:
        # argparse has printed what there is to say: the help, the version, or an error
        return ended.code if isinstance(ended.code, int) else 0
    code: int = parsed.run(parsed)
    return code


def _code_of(error: TeamsterError) -> int:
    # A TransferError is a TypeError, but what failed is an item and not the command line.
    usage = isinstance(error, (ValueError, TypeError, LookupError)) and not isinstance(
        error, TaskError
    )
    return USAGE if usage else FAILED


def _forget_stdout() -> None:
    # The interpreter flushes stdout once more when it ends, and would print "Exception ignored ...
    # BrokenPipeError".
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
