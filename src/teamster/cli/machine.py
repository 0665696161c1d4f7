# SPDX-License-Identifier: BSD-3-Clause
"""``teamster machine``: print what this process may use, and what limits it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the program's parser.

    Args:
        subparsers: What ``ArgumentParser.add_subparsers()`` returned.

    Example:
        >>> import argparse
        >>> parser = argparse.ArgumentParser()
        >>> add_parser(parser.add_subparsers())
        >>> parser.parse_args(["machine", "--json"]).json
        True
    """
    parser = subparsers.add_parser(
        "machine",
        help="show the cores, memory and GPUs that are really usable",
        description="Show what this process may use (CPU budget, memory, GPUs, Python), and what sets each limit.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object; sizes in bytes, CPUs as a fraction")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the machine.

    Args:
        arguments: The parsed arguments; ``json`` says which form.

    Returns:
        The exit code, 0.

    Example:
        >>> import argparse
        >>> code = run(argparse.Namespace(json=True))  # doctest: +ELLIPSIS
        {
          "cpu_budget": ...
        >>> code
        0
    """
    from teamster.machine.machine import Machine

    machine = Machine.detect()
    if arguments.json:
        import json

        print(json.dumps(machine.to_dict(), indent=2))
    else:
        print(machine)
    return 0
