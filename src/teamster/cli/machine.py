# SPDX-License-Identifier: BSD-3-Clause
"""``teamster machine``: print what this process may use, and what limits it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

DESCRIPTION = (
    "Show what this process may use (CPU budget, memory, GPUs, Python), and what sets each limit."
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what ``teamster machine`` can be told.

    Args:
        parser: the command's own.

    Example:
        >>> import argparse
        >>> parser = argparse.ArgumentParser()
        >>> add_options(parser)
        >>> parser.parse_args(["--json"]).json
        True
    """
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object; sizes in bytes, CPUs as a fraction",
    )


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
