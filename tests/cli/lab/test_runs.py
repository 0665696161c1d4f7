# SPDX-License-Identifier: BSD-3-Clause
"""A case in every way, small."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import psutil

from teamster.cli.lab.experiments import Case
from teamster.cli.lab.runs import WAYS, LabSetting, Sizes, run_case, way_name


def note(number: int, folder: str) -> int:
    with open(os.path.join(folder, str(number)), "a") as file:
        file.write("x")
    return number


def fail(number: int) -> int:
    return 1 // (7 - number)


def case_of(function: object, folder: Path) -> Case:
    bound = partial(note, folder=str(folder)) if function is note else function
    return Case(
        "",
        bound,  # type: ignore[arg-type]
        lambda number, _place, _cores: number,
        lambda _backend, workers, _budget, _gil: float(workers),
        "",
    )


def test_every_way_runs_every_input_in_every_round(tmp_path: Path) -> None:
    told: list[str] = []
    outcome = run_case(case_of(note, tmp_path), LabSetting(2, 2.0, ""), Sizes(0.0, 2), told.append)
    assert [each.way for each in outcome.measured] == [way_name(way) for way in WAYS]
    assert {each.run.items for each in outcome.measured} == {outcome.items} == {8}
    assert {len(each.rounds_s) for each in outcome.measured} == {2}
    assert [len((tmp_path / str(number)).read_text()) >= 2 * len(WAYS) for number in range(8)] == [
        True
    ] * 8
    # The warm-up calls the first ones only
    assert (tmp_path / "7").read_text() == "x" * (2 * len(WAYS))
    assert told[0] == "warm-up"
    assert told[1] == "serial, round 1 of 2"
    assert told[-1] == "auto, round 2 of 2"


def test_there_is_no_round_for_which_there_is_no_time(tmp_path: Path) -> None:
    outcome = run_case(
        case_of(note, tmp_path), LabSetting(2, 2.0, ""), Sizes(0.0, 9, 0.01), lambda text: None
    )
    assert {len(each.rounds_s) for each in outcome.measured} == {1}


def test_the_figures_hang_together(tmp_path: Path) -> None:
    outcome = run_case(
        case_of(note, tmp_path), LabSetting(2, 2.0, ""), Sizes(0.0, 1), lambda text: None
    )
    assert outcome.speedup(outcome.loop) == 1.0
    assert outcome.best in outcome.fixed
    assert outcome.auto.is_auto
    assert outcome.auto.expected == max(each.expected for each in outcome.fixed) == 4.0
    for each in outcome.measured:
        assert 0 < each.run.first_s <= each.run.seconds == each.rounds_s[0]
        assert each.run.cpu >= 0
        assert each.others_cpu >= 0
        assert each.timeline.lanes
        assert each.timeline.seconds >= each.run.seconds * 0.9


def test_a_process_aside_is_taken_out_of_the_processor_time(tmp_path: Path) -> None:
    outcome = run_case(
        case_of(note, tmp_path),
        LabSetting(2, 2.0, "", psutil.Process().pid),
        Sizes(0.0, 1),
        lambda text: None,
    )
    # All that the loop used was used by this process, which is aside here
    assert outcome.loop.run.cpu < 0.5


def test_failures_are_counted(tmp_path: Path) -> None:
    outcome = run_case(
        case_of(fail, tmp_path), LabSetting(2, 2.0, ""), Sizes(0.0, 1), lambda text: None
    )
    assert {each.run.failed for each in outcome.measured} == {1}
