# SPDX-License-Identifier: BSD-3-Clause
"""What one map call asks for, in one value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from teamster.spine.workers.backend import CallStyle
from teamster.spine.workers.job import CallOptions
from teamster.tasks.progress import Bar
from teamster.tasks.source import Source


@dataclass(frozen=True, slots=True)
class MapCall:
    """The arguments of `map` and its kin, checked.

    Attributes:
        function: what to call.
        style: how an item becomes arguments.
        seed: for the random numbers of each item, None for none.
        source: the items.
        terms: of the items: retries, timeout, chunk size.
        bar: its progress.
        raise_errors: whether the first exception ends the call.
        ordered: whether results come in input order.
        lazy: whether somebody takes them one by one.
    """

    function: Callable[..., Any]
    style: CallStyle
    seed: int | None
    source: Source
    terms: CallOptions
    bar: Bar
    raise_errors: bool
    ordered: bool
    lazy: bool
