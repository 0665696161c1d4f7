# SPDX-License-Identifier: BSD-3-Clause
"""``teamster serve``: a model behind HTTP."""

from __future__ import annotations

import os

from teamster.cli.inputs import load_object
from teamster.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

DESCRIPTION = (
    "Serve a model behind HTTP: POST /predict takes the input as its body (JSON, MessagePack or a "
    "raw tensor) and answers the output. SIGTERM ends it when all that were let in have answers."
)
EPILOG = "teamster serve model.pt --example input.json --p99 0.05"

_TOKEN = "TEAMSTER_TOKEN"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what ``teamster serve`` can be told.

    Args:
        parser: the command's own.

    Example:
        >>> import argparse
        >>> parser = argparse.ArgumentParser()
        >>> add_options(parser)
        >>> parser.parse_args(["package:model", "--p99", "0.05"]).p99
        0.05
    """
    parser.add_argument(
        "model", help="package.module:model, or a file of TorchScript (.pt) or torch.export (.pt2)"
    )
    parser.add_argument(
        "--p99", type=float, metavar="SECONDS", help="promise answers in this time, or refuse"
    )
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 for all interfaces")
    parser.add_argument("--port", type=int, default=8000, help="0 for any that is free")
    parser.add_argument("--workers", type=int, metavar="N", help="replicas; one a core")
    parser.add_argument(
        "--batched", action="store_true", default=None, help="it takes a list, returns as many"
    )
    parser.add_argument("--max-batch", type=int, default=32, metavar="N", help="rows of a batch")
    parser.add_argument(
        "--example",
        metavar="FILE",
        help="an input as JSON, to measure with at the start",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal ends it; a token for clients is taken from TEAMSTER_TOKEN.

    Args:
        arguments: The parsed arguments.

    Returns:
        The exit code, 0.

    Raises:
        UsageError: the model cannot be loaded or served, or the port is taken.
    """
    try:
        from teamster.serve import Server
    except ImportError as error:
        raise UsageError(f"serving needs {error.name}: pip install 'teamster[serve]'") from None
    server = Server(
        _load(arguments.model),
        p99=arguments.p99,
        workers=arguments.workers,
        batched=arguments.batched,
        max_batch=arguments.max_batch,
        example=_example(arguments.example),
        token=os.environ.get(_TOKEN) or None,
    )
    server.run(arguments.host, arguments.port, ready=lambda line: print(line, flush=True))
    return 0


def _load(name: str) -> Any:
    from teamster.serve.files import SUFFIXES, load_file

    return load_file(name) if name.endswith(SUFFIXES) else load_object(name, "model")


def _example(path: str | None) -> Any:
    if path is None:
        return None
    import json

    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        raise UsageError(f"--example {path}: {error}") from None
