# SPDX-License-Identifier: BSD-3-Clause
"""Batches for a training loop: a `DataLoader` that finds out how many workers of which kind pay.

::

    loader     DataLoader, what a user holds        arguments  what it may be asked for
    prefetch   its iterator: batches, ahead         streaming  the same of iterable datasets
                                                    iterating  processes that have their parts
    bounds     how many may be open, in bytes       state      where an epoch is
    fetch      samples of rows, and their batch     sampling   their random numbers
    collate    parts of a batch as one              vectorised  datasets in memory
    feeding    who fills them: the consumer itself  staffing   from a plan to workers
    calm       the consumer's native threads, beside those that compute
    rows       how many a task has                  slots      rows of a batch in shared memory
    threads    threads of this process              processes  processes that have the dataset
    reading    what each of those does              worker_info  whom torch takes for a worker
    tuning     the choice, by the consumer's time   outline    whether reading changes the dataset
    forked     what only a fork can have
    failures   samples that cannot be read          packing    millions of small objects
    order      of torch's samplers, as tensors      transfer   batches on a device
    loader_report
    sharing/   one loader for several programs
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from teamster.data.loader import DataLoader
    from teamster.data.loader_report import LoaderReport
    from teamster.data.packing import Packed, pack

__all__ = ["DataLoader", "LoaderReport", "Packed", "pack"]

_HOMES = {
    "DataLoader": "loader",
    "LoaderReport": "loader_report",
    "Packed": "packing",
    "pack": "packing",
}


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
