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
        ts.Pool(
            "process", workers=2, initializer=never_ready, timeout=0.4, start_method=start_method
        ) as pool,
        pytest.raises(
            ts.WorkerStartError, match=r"the initializer of worker \d ran for more than 0.4 s"
        ),
    ):
        pool.map(abs, range(4))


class Loading:
    """An initializer that takes its time to arrive, as one does that imports torch."""

    def __call__(self) -> None: ...

    def __reduce__(self) -> tuple[object, ...]:
        return _load, (1.0,)


def _load(seconds: float) -> Loading:
    time.sleep(seconds)
    return Loading()


def test_what_is_loaded_before_an_initializer_has_its_own_time() -> None:
    """A worker of a busy machine that was not up within timeout= was said to have a slow
    initializer, where there was none.
    """
    with ts.Pool("process", workers=1, initializer=Loading(), timeout=0.5) as pool:
        assert pool.map(abs, range(4)) == [0, 1, 2, 3]
