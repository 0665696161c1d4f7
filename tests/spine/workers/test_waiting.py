# SPDX-License-Identifier: BSD-3-Clause
"""Who is woken when many wait for one team."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import teamster as ts
from teamster.spine.workers.waiting import Waiter


def test_callers_are_asked_for_items_only_when_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """100 threads that map: each report once woke all of them, one after the other, to find that
    the workers had enough.
    """
    woken, wake, callers, maps = list[int](), Waiter.wake, 100, 3

    def counted(waiter: Any) -> None:
        woken.append(1)
        wake(waiter)

    monkeypatch.setattr(Waiter, "wake", counted)
    with ts.Pool("thread", workers=2) as pool:
        threads = [
            threading.Thread(target=lambda: [pool.map(abs, range(20)) for _ in range(maps)])
            for _ in range(callers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(woken) < 30 * callers * maps
