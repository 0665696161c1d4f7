# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

import time
from typing import Any

import pytest

import teamster as ts
from teamster.spine.trace.report import Account


@pytest.mark.parametrize("backend", ["serial", "thread", "process"])
def test_every_report_has_the_batches_of_its_workers(backend: Any) -> None:
    with ts.Pool(backend, workers=1 if backend == "serial" else 2) as pool:
        pool.map(lambda _: time.sleep(0.002), range(40))
        report = pool.report()
    timeline = report.timeline
    assert [lane.label for lane in timeline.lanes] == (
        ["caller"] if backend == "serial" else [f"{backend} 0", f"{backend} 1"]
    )
    assert sum(sum(lane.spans.count) for lane in timeline.lanes) == 40
    busy = [
        sum(end - begin for begin, end, *_ in lane.spans.rows()) / 1e9 for lane in timeline.lanes
    ]
    assert busy == pytest.approx(list(report.busy_s), rel=1e-3)
    assert all(
        timeline.begin_ns <= lane.spans.begin[0] <= timeline.end_ns for lane in timeline.lanes
    )
    assert timeline.jobs[0].report == str(report)


def test_what_the_caller_ran_itself_is_there_too() -> None:
    with ts.Pool() as pool:
        pool.map(abs, range(100))
        lanes = pool.report().timeline.lanes
    # On a busy machine others may have run some
    ran = {lane.label: sum(lane.spans.count) for lane in lanes}
    assert ran["caller"] > 0
    assert sum(ran.values()) == 100


def test_a_report_of_nothing_is_drawn_too() -> None:
    report = ts.Pool("serial").report()
    assert report.timeline.lanes == ()
    assert report.plot().axes
    assert report._repr_png_() is None
    assert report._repr_html_().startswith("<pre>serial(1)")


def test_a_notebook_shows_text_and_picture() -> None:
    with ts.Pool("thread", workers=2) as pool:
        pool.map(abs, range(100))
        report = pool.report()
    assert "<svg" in report._repr_html_()
    assert (report._repr_png_() or b"").startswith(b"\x89PNG")


def test_the_batches_are_not_in_the_numbers() -> None:
    with ts.Pool("serial") as pool:
        pool.map(abs, range(100))
        assert "batches_by_worker" not in pool.report().to_dict()


def test_batches_are_bounded_and_none_is_forgotten() -> None:
    account = Account("process", 0)
    for number in range(50_000):
        account.add(2, 1_000_000, 3_000_000 * (number + 1))
    assert len(account.rows) < 5_000
    assert sum(row[3] for row in account.rows) == account.items == 100_000
