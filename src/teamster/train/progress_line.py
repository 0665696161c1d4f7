# SPDX-License-Identifier: BSD-3-Clause
"""A line on a terminal, or in a notebook: batches, samples a second, and what is logged."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import Any

from teamster.train.logs import Record

_EVERY_S = 0.1  # what an eye sees
_MOST_VALUES = 4  # in the line


class ProgressLine:
    """Follows a training; takes records as a logger does, so that no device is waited for.

    Args:
        wanted: None to have one where standard error is a terminal or a notebook.
        samples: how many were trained with so far.

    Example:
        >>> line = ProgressLine(False, lambda: 0.0)
        >>> list(line.over([1, 2], 2))
        [1, 2]
    """

    def __init__(self, wanted: bool | None, samples: Callable[[], float]) -> None:
        self.is_on = _is_seen() if wanted is None else wanted
        self._samples = samples
        self._values: dict[str, float] = {}

    def write(self, record: Record) -> None:
        """The latest numbers."""
        if record.kind == "scalars":
            self._values.update(record.values)

    def close(self) -> None:
        """Nothing to do."""

    def over(self, batches: Iterable[Any], total: int | None) -> Iterator[Any]:
        """Go through batches, with a line."""
        if not self.is_on:
            yield from batches
            return
        from tqdm.auto import tqdm

        class Line(tqdm):  # type: ignore[type-arg]
            monitor_interval = 0  # no thread that outlives the line

        began, first = perf_counter(), self._samples()
        shown = began
        with Line(total=total, unit="batch", leave=True, dynamic_ncols=True) as bar:
            for batch in batches:
                yield batch
                bar.update()
                if (now := perf_counter()) - shown > _EVERY_S:
                    shown = now
                    bar.set_postfix_str(self._text(self._samples() - first, now - began), False)
            bar.set_postfix_str(self._text(self._samples() - first, perf_counter() - began))

    def _text(self, samples: float, seconds: float) -> str:
        values = list(self._values.items())[:_MOST_VALUES]
        told = [f"{name} {value:.4g}" for name, value in values]
        return ", ".join([*told, f"{samples / max(seconds, 1e-9):,.0f} samples/s"])


def _is_seen() -> bool:
    try:
        return sys.stderr.isatty() or _is_notebook()
    except (AttributeError, ValueError):
        return False


def _is_notebook() -> bool:
    """Whether a kernel runs this program; one may have loaded the library for others."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return type(shell).__name__ == "ZMQInteractiveShell"
