# SPDX-License-Identifier: BSD-3-Clause
"""Where the ranks of one program meet in the middle of a pass.

::

    rank n --message, by a pipe--> the program adds up --the sum--> each rank

Under torchrun an all-reduce does the same.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection

import torch

_LOOK_S = 0.05  # at a rank, whether it lives


class Hub:
    """The program, among ranks that it has started.

    Args:
        is_alive: whether a rank lives.

    Example:
        >>> Hub(lambda rank: True).sum_all(torch.ones(2)).tolist()
        [1.0, 1.0]
    """

    def __init__(self, is_alive: Callable[[int], bool]) -> None:
        self._is_alive = is_alive
        self._lines: dict[int, tuple[Connection, Connection]] = {}
        self._active: list[int] = []

    def line_for(self, rank: int) -> Connection:
        """The end of a new line, for a rank that starts."""
        self._lines[rank] = multiprocessing.Pipe()
        return self._lines[rank][1]

    def begin(self, ranks: Iterable[int]) -> None:
        """A step of these ranks, and the program, begins."""
        self._active = list(ranks)

    def sum_all(self, message: torch.Tensor) -> torch.Tensor:
        """The messages of all slices, added up; one that has died counts as failed."""
        total = message.clone()
        for rank in list(self._active):
            found = self._receive(rank)
            if found is None:
                self._active.remove(rank)
                total[1] = 1.0
            else:
                total += found
        for rank in self._active:
            with contextlib.suppress(OSError):  # the next sum shows that it is gone
                self._lines[rank][0].send_bytes(total.numpy().tobytes())
        return total

    def _receive(self, rank: int) -> torch.Tensor | None:
        line = self._lines[rank][0]
        try:
            while not line.poll(_LOOK_S):
                if not self._is_alive(rank):
                    return None
            return _unpacked(line.recv_bytes())
        except (EOFError, OSError):
            return None

    def close(self) -> None:
        """No rank is there any more."""
        for ends in self._lines.values():
            for end in ends:
                end.close()
        self._lines.clear()


def sum_by(line: Connection, message: torch.Tensor) -> torch.Tensor:
    """In a rank: what the program has added up.

    Args:
        line: to the program.
        message: of this rank.
    """
    line.send_bytes(message.numpy().tobytes())
    return _unpacked(line.recv_bytes())


def _unpacked(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.float64)
