# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import teamster as ts
from teamster.spine.trace.columns import Spans
from teamster.spine.trace.export import check_path, save
from teamster.spine.trace.timeline import Lane


def some() -> ts.Timeline:
    return ts.Timeline(
        0, 100, 0.0, ("", "work"), (Lane("caller", "caller", -1, 1, Spans([(0, 50, 0, 1, 1, 0)])),)
    )


def test_a_timeline_a_recording_and_a_report_can_be_drawn() -> None:
    with ts.record() as recording, ts.Pool("thread", workers=2) as pool:
        pool.map(abs, range(10))
    for source in (some(), recording, pool.report()):
        assert ts.plot(source).axes


@pytest.mark.parametrize("source", [None, 5, "run.html"])
def test_anything_else_cannot(source: Any) -> None:
    with pytest.raises(
        ts.UsageError, match="a report, a recording or a timeline can be drawn, not "
    ):
        ts.plot(source)


def test_a_file_that_was_there_is_replaced_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.json"
    path.write_text("before")

    def fail(*_: Any) -> None:
        raise RuntimeError("in the middle")

    monkeypatch.setattr("teamster.spine.trace.render.chrome.to_chrome_json", fail)
    with pytest.raises(RuntimeError):
        save(some(), path)
    assert path.read_text() == "before"
    assert [each.name for each in tmp_path.iterdir()] == ["run.json"]
    monkeypatch.undo()
    save(some(), path)
    assert path.read_text().startswith("{")


def test_saving_checks_the_ending(tmp_path: Path) -> None:
    with pytest.raises(ts.UsageError, match="ends otherwise"):
        save(some(), tmp_path / "run.doc")
    assert check_path(tmp_path / "run.svg") == str(tmp_path / "run.svg")
    assert list(tmp_path.iterdir()) == []
