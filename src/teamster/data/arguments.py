# SPDX-License-Identifier: BSD-3-Clause
"""What a loader may be asked for, and how many workers that means."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any, Literal

from teamster.errors import UsageError
from teamster.machine.cpus import usable_cores
from teamster.spine.plan.choice import is_count

Kind = Literal["auto", "inline", "thread", "process", "hybrid"]

KINDS = {"inline": "serial", "thread": "thread", "process": "process", "hybrid": "hybrid"}
"""Kinds of workers, as plans name them."""


class AutoCount(int):
    """A number of workers that stands for "auto".

    Frameworks make loaders anew from what they see of one: ours is then what it was, and one of
    torch's has this many.

    Example:
        >>> AutoCount(2) + 1
        3
    """


def check(workers: Any, seeding: Any, prefetch_bytes: Any, *, iterable: bool) -> None:
    """Refuse what makes no sense.

    Raises:
        UsageError: it says what is expected.
    """
    if workers not in ("auto", *KINDS):
        known = ", ".join(repr(each) for each in ("auto", *KINDS))
        raise UsageError(f"workers must be one of {known}, not {workers!r}")
    if seeding not in ("sample", "torch"):
        raise UsageError(f"seeding must be 'sample' or 'torch', not {seeding!r}")
    if prefetch_bytes != "auto" and not is_count(prefetch_bytes, 1):
        raise UsageError(
            f"prefetch_bytes must be 'auto' or a number of bytes, at least 1, not "
            f"{prefetch_bytes!r}"
        )
    if iterable and workers in ("thread", "hybrid"):
        raise UsageError(
            "an iterable dataset is read by the consumer (workers='inline') or by processes, as "
            "torch reads it: threads would share its one iterator"
        )


def check_share(share: Any, late: Any, *, iterable: bool) -> None:
    """Refuse what cannot be shared.

    Raises:
        UsageError: it says why.
    """
    if share is not None and not isinstance(share, str):
        raise UsageError(f"share must be a name, not {share!r}")
    if late not in ("next epoch", "now"):
        raise UsageError(f"share_late must be 'next epoch' or 'now', not {late!r}")
    if share is not None and iterable:
        raise UsageError("an iterable dataset cannot be shared: what comes next is not known")


def check_torchs(loader: Any) -> None:
    """Refuse what torch's own workers cannot do.

    Args:
        loader: whose processes have to be torch's.

    Raises:
        UsageError: it asks for that.
    """
    asked = {"on_error": loader.on_error != "raise", "device": loader.device is not None}
    if names := [name for name, is_asked in asked.items() if is_asked]:
        raise UsageError(
            f"{' and '.join(names)}= cannot be had with seeding='torch' and processes: those are "
            "torch's own; take seeding='sample', or another kind of workers"
        )


def count_of(num_workers: int | Literal["auto"], workers: Kind, *, iterable: bool) -> int:
    """What torch is told: with "auto" it must not refuse what is for workers."""
    if workers == "inline":
        return 0
    if num_workers == "auto" or isinstance(num_workers, AutoCount):
        return 0 if iterable else AutoCount(cores())
    return num_workers


def altered(loader: Any, **arguments: Any) -> Any:
    """The same loader, as one that reads in its place is to see it.

    Args:
        loader: of torch's class, or ours.
        arguments: attributes that are others there.

    Example:
        >>> from teamster.data import DataLoader
        >>> altered(DataLoader([1, 2]), drop_last=True).drop_last
        True
    """
    twin = object.__new__(type(loader))
    twin.__dict__.update({**loader.__dict__, **arguments})
    return twin


def cores() -> int:
    """Usable cores, as when they were counted first."""
    return _cores_of(frozenset(getattr(os, "sched_getaffinity", lambda _: ())(0)))


@lru_cache(4)
def _cores_of(_: frozenset[int]) -> int:
    """Usable cores, read once: programs make thousands of small loaders."""
    return usable_cores()
