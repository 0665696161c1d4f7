# SPDX-License-Identifier: BSD-3-Clause
"""What is said of a death blames nobody without evidence."""

from __future__ import annotations

import pytest

from teamster.errors import WorkerStartError
from teamster.spine.workers.death import Death, warn_of_late_ends

LEFT_WITH_3 = 3 << 8


def test_the_initializer_is_blamed_only_for_what_happened_in_it() -> None:
    assert "initializer" in str(Death(0, LEFT_WITH_3, 0, "", None, initialising=True).error(-1, 0))
    assert "initializer" not in str(Death(0, LEFT_WITH_3, 0, "", None).error(-1, 0))


def test_an_end_that_was_not_seen_names_who_could_not_see_it() -> None:
    assert "waitpid(-1)" in str(Death(0, None, 0, "", None, forked=True).error(7, 1))
    assert "fork server" in str(Death(0, None, 0, "", None).error(7, 1))


def test_what_could_not_be_started_says_that_alone() -> None:
    refusal = WorkerStartError("no Python")
    assert Death(0, None, 0, "", None, refusal=refusal).error(-1, 0) is refusal


def test_late_workers_are_named() -> None:
    with pytest.warns(RuntimeWarning, match="worker 0, 3 was ended 10 s after"):
        warn_of_late_ends([0, 3], 10.0)
