# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

import teamster as ts


def test_a_pool_without_a_name_is_on_the_record() -> None:
    with ts.record() as recording:
        ts.Pool("thread", workers=2).map(abs, range(10))
    assert [note.title for note in recording.timeline.jobs] == ["thread(2)"]


def test_a_pool_that_did_nothing_is_not() -> None:
    with ts.record() as recording, ts.Pool("thread", workers=2):
        pass
    assert recording.timeline.jobs == ()


def test_a_pool_of_many_calls_is_there_once_with_its_last_state() -> None:
    with ts.Pool("thread", workers=2) as pool:
        with ts.record() as recording:
            for _ in range(3):
                pool.map(abs, range(10))
            pool.submit(abs, 1).result()
        (note,) = recording.timeline.jobs
    assert note.facts["report"]["items"] == 31
