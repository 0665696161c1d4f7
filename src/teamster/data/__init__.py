# SPDX-License-Identifier: BSD-3-Clause
"""Batches for a training loop: a `DataLoader` that finds out how many workers of which kind pay.

::

    loader     DataLoader, what a user holds        prefetch   its iterator: batches in order, ahead
    fetch      samples of rows, and a batch of them            collate    parts of a batch as one
    feeding    who fills batches: the consumer itself          rows       how many a task has
    threads    threads of this process              processes  processes that have the dataset
    tuning     the choice, by the consumer's time   loader_report
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from teamster.data.loader import DataLoader
    from teamster.data.loader_report import LoaderReport

__all__ = ["DataLoader", "LoaderReport"]

_HOMES = {"DataLoader": "loader", "LoaderReport": "loader_report"}


def __getattr__(name: str) -> object:
    """Import the file that owns a public name on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value: object = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
