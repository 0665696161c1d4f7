# SPDX-License-Identifier: BSD-3-Clause
"""The clock of a team, at work."""

from __future__ import annotations

import time

import pytest

import teamster as ts


def never_ready() -> None:
    time.sleep(60)


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_an_initializer_has_the_time_of_an_item(start_method: str) -> None:
    with (
        ts.Pool("process", workers=2, initializer=never_ready, timeout=0.4, start_method=start_method) as pool,
        pytest.raises(ts.WorkerStartError, match=r"the initializer of worker \d ran for more than 0.4 s"),
    ):
        pool.map(abs, range(4))
