# SPDX-License-Identifier: BSD-3-Clause
"""``teamster why``: why the slowest requests of a server were slow."""

from __future__ import annotations

from teamster.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

DESCRIPTION = (
    "Ask a server that `teamster serve` or Server.run() has started why the slowest of its last "
    "requests were slow: where their time went, behind what they waited, and what took longer than "
    "usual."
)
EPILOG = "teamster why http://localhost:8000"

_PATH = "/debug/slow"
_TIMEOUT_S = 10.0  # a server that computes in its event loop has other things to do
# The heads of the table, and the names in the server's answer
_COLUMNS = {
    "total": "total_ms",
    "read": "read_ms",
    "decode": "decode_ms",
    "hold": "hold_ms",
    "queue": "queue_ms",
    "compute": "compute_ms",
    "back": "back_ms",
    "batch": "batch",
    "replica": "replica",
    "status": "status",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what ``teamster why`` can be told.

    Args:
        parser: the command's own.

    Example:
        >>> import argparse
        >>> parser = argparse.ArgumentParser()
        >>> add_options(parser)
        >>> parser.parse_args(["http://localhost:8000"]).url
        'http://localhost:8000'
    """
    parser.add_argument("url", help="of the server, as http://localhost:8000")
    parser.add_argument("--json", action="store_true", help="print the server's own answer")


def run(arguments: argparse.Namespace) -> int:
    """Print the reasons, and the slowest requests.

    Args:
        arguments: The parsed arguments.

    Returns:
        The exit code, 0.

    Raises:
        UsageError: there is no such server under the address.
    """
    import json

    found = _asked(arguments.url)
    if arguments.json:
        print(json.dumps(found, indent=2))
        return 0
    for path, model in found["models"].items():
        print(f"{model['model']} ({path}){_counts(model)}")
        for sentence in model["why"]:
            print(f"  {sentence}")
        if model["slowest"]:
            print("\n  the slowest, in ms")
            _print_table(model["slowest"])
    return 0


def _asked(url: str) -> Any:
    import json
    import urllib.request

    address = url if "://" in url else f"http://{url}"
    try:
        with urllib.request.urlopen(address.rstrip("/") + _PATH, timeout=_TIMEOUT_S) as answer:
            found = json.load(answer)
            found["models"]
    except OSError as error:  # of urllib, with the status of a server that has no such page
        raise UsageError(f"cannot ask {address}: {getattr(error, 'reason', error)}") from None
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"{address} is no server of Teamster") from None
    return found


def _counts(model: Any) -> str:
    if not model["requests"]:
        return ""
    last = f"the last {model['requests']:,} requests"
    return f", {last}: p50 {model['p50_ms']:.3g} ms, p99 {model['p99_ms']:.3g} ms"


def _print_table(rows: list[dict[str, Any]]) -> None:
    table = [list(_COLUMNS), *([_cell(row[key]) for key in _COLUMNS.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        line = "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        print(f"  {line}")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
