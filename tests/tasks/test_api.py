# SPDX-License-Identifier: BSD-3-Clause
"""A plan is shown, kept and repeated."""

import json
import time
from pathlib import Path

import pytest

import teamster as ts


def wait(_: object) -> None:
    time.sleep(0.01)


def test_explain_runs_only_the_first_items() -> None:
    ran: list[int] = []
    plan = ts.explain(lambda n: ran.append(n) or time.sleep(0.02), range(1_000))
    assert 1 < len(ran) < 100
    assert plan.backend == "thread"
    assert plan.evidence is not None
    assert plan.evidence.items == len(ran)
    assert all(each.measured is None for each in plan.candidates if each.backend != "serial")


def test_explain_raises_what_the_function_raises() -> None:
    with pytest.raises(ZeroDivisionError):
        ts.explain(lambda n: 1 // n, [0])
    with pytest.raises(ts.UsageError, match="must be a function"):
        ts.explain(3, [0])  # type: ignore[arg-type]


def test_the_environment_can_ask_for_an_explanation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TEAMSTER_EXPLAIN", "1")
    ts.map(wait, range(50))
    assert capsys.readouterr().err.startswith("teamster: thread(")
    monkeypatch.setenv("TEAMSTER_EXPLAIN", "0")
    ts.map(wait, range(5))
    assert capsys.readouterr().err == ""


def test_the_report_carries_the_plan() -> None:
    with ts.Pool() as pool:
        pool.map(wait, range(100))
        report = pool.report()
        assert report.plan == pool.plan
    assert json.loads(json.dumps(report.to_dict()))["plan"]["backend"] == "thread"


def test_plans_are_recorded_and_repeated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TEAMSTER_PLAN_FILE", str(tmp_path / "plans.json"))
    ts.map(wait, range(100))
    plans = json.loads((tmp_path / "plans.json").read_text())["plans"]
    (name,) = plans
    assert name == f"{__name__}:wait#0"
    plans[name]["backend"], plans[name]["workers"] = "thread", 5
    (tmp_path / "other.json").write_text(json.dumps({"plans": plans}))
    monkeypatch.setenv("TEAMSTER_PLAN_FILE", str(tmp_path / "other.json"))
    with ts.Pool() as pool:
        for _ in range(2):  # the second call repeats the last that was recorded
            pool.map(wait, range(40))
            assert pool.plan.choice == "thread(5)"
    assert sum(count > 0 for count in pool.report().items_by_worker) == 5


def test_a_file_that_cannot_be_written_costs_no_result(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TEAMSTER_PLAN_FILE", str(tmp_path / "plans.json"))
    with ts.Pool() as pool:
        (tmp_path / "plans.json").mkdir()
        with pytest.warns(RuntimeWarning, match="TEAMSTER_PLAN_FILE: cannot write"):
            assert pool.map(abs, [-1, -2]) == [1, 2]


def test_a_file_without_plans_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("[1, 2")
    monkeypatch.setenv("TEAMSTER_PLAN_FILE", str(tmp_path / "broken.json"))
    with pytest.raises(ts.UsageError, match=r"TEAMSTER_PLAN_FILE: .*broken\.json holds no plans"):
        ts.Pool()
