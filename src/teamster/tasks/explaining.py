# SPDX-License-Identifier: BSD-3-Clause
"""`explain`: the plan without the work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from teamster.spine.plan.choice import CANDIDATES
from teamster.spine.plan.plan import Plan
from teamster.spine.workers.backend import CallStyle
from teamster.spine.workers.job import CallOptions
from teamster.spine.workers.team import Team
from teamster.tasks.call import MapCall
from teamster.tasks.check import check_callable
from teamster.tasks.choosing import decide
from teamster.tasks.measured import MeasuredMapping
from teamster.tasks.progress import Bar
from teamster.tasks.roster import Roster
from teamster.tasks.source import Source


def explain(
    function: Callable[..., Any],
    iterable: Iterable[Any],
    *more: Iterable[Any],
    workers: int | None = None,
    allow: Sequence[str] = CANDIDATES,
) -> Plan:
    """Say how `map` would begin, and why: runs the first items in the caller, and nobody else.

    What is expected is not always what is measured: `map` tries what this promises, and keeps the best.

    Args:
        function: any callable.
        iterable: the items; of an iterator those that were run, a quarter of a second of them, are gone.
        *more: further iterables, zipped with the first.
        workers: as of `Pool`.
        allow: as of `Pool`.

    Returns:
        The plan, with candidates that were not measured yet; `print` shows it as a table.

    Raises:
        UsageError: an argument makes no sense.
        Exception: what the function raised.

    Example:
        >>> import teamster as ts
        >>> ts.explain(abs, [-1, 2]).choice
        'serial'
    """
    check_callable(function)
    asked, limits = decide("auto", workers, allow, None, "")
    if asked.backend != "auto":
        return asked
    source = Source((iterable, *more))
    style: CallStyle = "star" if more else "call"
    bar, terms = Bar(False, source.total), CallOptions(0, None, None)
    call = MapCall(function, style, None, source, terms, bar, raise_errors=True, ordered=True, lazy=False)
    return MeasuredMapping(call, Roster(_nobody, None), limits, lambda plan, prints: None, None).probe()


def _nobody(plan: Plan, lock: threading.RLock) -> Team:
    raise AssertionError(f"a probe starts no workers, and {plan} would be some")
