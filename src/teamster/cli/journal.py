# SPDX-License-Identifier: BSD-3-Clause
"""The output of ``teamster map``.

It holds whole lines only, so that a killed run can go on where it stopped.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from typing import Any

from teamster.errors import UsageError


class Journal:
    """A file of JSON lines, or standard output.

    A line that was written survives a SIGKILL of this process: nothing is buffered.
    """

    def __init__(self, path: str | None, *, keep: bool = False) -> None:
        """Open it.

        Args:
            path: the file; None for standard output.
            keep: go on with what the file holds instead of starting anew.

        Raises:
            UsageError: the file cannot be written.
        """
        self._descriptor = sys.stdout.fileno() if path is None else -1
        self._own = path is not None
        if path is not None:
            flags = (
                os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | (0 if keep else os.O_TRUNC)
            )
            try:
                self._descriptor = os.open(path, flags, 0o666)
            except OSError as error:
                raise UsageError(f"cannot write {path!r}: {error.strerror}") from error

    def write(self, line: str) -> None:
        """Write one line.

        Raises:
            OSError: the disk is full, or no program reads.
        """
        rest = memoryview(line.encode() + b"\n")
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def close(self) -> None:
        """Close the file."""
        if self._own:
            os.close(self._descriptor)


def read_done(path: str) -> Counter[str]:
    """How often each input stands in the output of an earlier run.

    A last line that the kill has torn is cut off.

    Raises:
        UsageError: the file holds something else than the output of ``teamster map``.
    """
    done: Counter[str] = Counter()
    whole = 0
    try:
        with open(path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    break
                done[_input_of(line, path, number)] += 1
                whole += len(line)
        os.truncate(path, whole)
    except FileNotFoundError:
        return done
    except OSError as error:
        raise UsageError(f"cannot read {path!r}: {error.strerror}") from error
    return done


def _input_of(line: bytes, path: str, number: int) -> str:
    try:
        entry: Any = json.loads(line)
        name = entry["input"]
    except (ValueError, KeyError, TypeError):
        name = None
    if not isinstance(name, str):
        raise UsageError(
            f"line {number} of {path!r} is not the output of teamster map, so --resume cannot go "
            "on with it"
        )
    return name
