# SPDX-License-Identifier: BSD-3-Clause
"""The choice is made by the user's own steps, and changes nothing but the time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from teamster.spine.plan import store
from teamster.train import Trainer
from teamster.train.strategies import auto
from teamster.train.strategies.strategy import Work
from tests.train.models import batch, loss_fn, make

SECONDS = {("single", 1): 5.0, ("single", 2): 4.0, ("dp", 2): 3.0, ("ddp", 2): 2.0}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that strategies move: by how long each takes."""
    now = [0.0]
    monkeypatch.setattr(auto, "perf_counter", lambda: now[0])
    monkeypatch.setattr(auto, "usable_cores", lambda: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    return now


class Pretends:
    """A strategy that takes as long as it is told."""

    differs = ""

    def __init__(self, setting: Any, clock: list[float], used: list[Any]) -> None:
        self.setting, self.clock, self.used = setting, clock, used
        self.name, self.workers = setting
        self.closed = False
        self.asked = 0

    def start(self) -> None:
        self.used.append("start")

    def have_come(self) -> bool:
        """Not at once: the fastest of the others goes on meanwhile."""
        self.asked += 1
        return self.asked > 3

    def run(self, work: Work) -> Any:
        self.clock[0] += SECONDS[self.setting]
        self.used.append(self.setting)
        return {None: torch.tensor(1.0)}

    def update(self, apply: Any) -> None:
        apply()

    def close(self) -> None:
        self.closed = True


def measuring(clock: list[float], used: list[Any], model: Any, monkeypatch: Any) -> Any:
    found = auto.Measuring(model)
    monkeypatch.setattr(found, "_make", lambda name, count: Pretends((name, count), clock, used))
    monkeypatch.setattr(auto, "Ranks", Pretends)
    return found


def test_all_take_turns_and_the_fastest_stays(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[Any] = []
    strategy = measuring(clock, used, make("mlp"), monkeypatch)
    work = Work(loss_fn, batch("mlp", 8, 0))
    assert strategy.plan.reason == "steps are measured"
    for _ in range(60):
        strategy.run(work)
    counts = Counter(used)
    assert used[-10:] == [("ddp", 2)] * 10
    assert counts["start"] == 1
    assert all(4 <= counts[setting] <= 15 for setting in SECONDS if setting != ("ddp", 2))
    plan = strategy.plan
    assert (plan.backend, plan.workers) == ("ddp", 2)
    assert {(each.backend, each.workers) for each in plan.candidates} == set(SECONDS)


def test_ranks_that_are_slower_end(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SECONDS, ("ddp", 2), 9.0)
    used: list[Any] = []
    strategy = measuring(clock, used, make("mlp"), monkeypatch)
    for _ in range(60):
        strategy.run(Work(loss_fn, batch("mlp", 8, 0)))
    assert strategy.plan.backend == "dp"
    assert ("ddp", 2) not in strategy._made


def test_short_steps_start_no_process(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    for setting, seconds in list(SECONDS.items()):
        monkeypatch.setitem(SECONDS, setting, seconds * 1e-4)
    used: list[Any] = []
    strategy = measuring(clock, used, make("mlp"), monkeypatch)
    for _ in range(60):
        strategy.run(Work(loss_fn, batch("mlp", 8, 0)))
    assert "start" not in used
    notes = {each.backend: each.note for each in strategy.plan.candidates if each.note}
    assert notes == {"ddp": "a step takes less than messages to another process may"}


def test_statistics_of_fewer_rows_are_not_chosen() -> None:
    """The choice must not change the meaning."""
    model = make("cnn")
    with Trainer(model, torch.optim.SGD(model.parameters(), lr=0.1)) as trainer:
        for number in range(12):
            trainer.step(loss_fn, *batch("cnn", 8, number))
        notes = {each.backend: each.note for each in trainer.plan.candidates if each.note}
    assert set(notes) == {"dp", "ddp"}
    assert "BatchNorm layers would take statistics of fewer rows" in notes["dp"]
    assert trainer.plan.backend == "single"


def test_the_curve_is_that_of_single_while_it_is_chosen() -> None:
    curves = {}
    for strategy in ("single", "auto"):
        model = make("mlp")
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        with Trainer(model, optimizer, strategy) as trainer:  # type: ignore[arg-type]
            curves[strategy] = [
                float(trainer.step(loss_fn, *batch("mlp", 9, number)))  # type: ignore[arg-type]
                for number in range(40)
            ]
    assert curves["auto"] == pytest.approx(curves["single"], abs=1e-5)


def test_what_cannot_be_sliced_is_left_to_single() -> None:
    """And costs no gradient: the batch is computed once more, from where it was."""
    model = nn.Linear(3, 1)
    x = torch.ones(4, 3)
    with Trainer(model, torch.optim.SGD(model.parameters(), lr=0.1)) as trainer:
        for _ in range(12):
            trainer.step(lambda module: module(x).mean())
        assert trainer.plan.backend == "single"
    plain = nn.Linear(3, 1)
    assert model.weight.grad.tolist() == [[1.0, 1.0, 1.0]]  # of the latest step, and no other
    assert plain.weight.grad is None


def test_the_choice_is_remembered(
    clock: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TEAMSTER_PLAN_FILE", str(tmp_path / "plans.json"))
    monkeypatch.setattr(auto, "_WORTH_RANKS_S", 0.0)
    used: list[Any] = []
    strategy = measuring(clock, used, make("mlp"), monkeypatch)
    for _ in range(60):
        strategy.run(Work(loss_fn, batch("mlp", 8, 0)))
    store._stores.clear()  # as in the next run
    again: list[Any] = []
    strategy = measuring(clock, again, make("mlp"), monkeypatch)
    strategy.run(Work(loss_fn, batch("mlp", 8, 0)))
    assert again == [("ddp", 2)]
    assert strategy.plan.reason == "recorded in TEAMSTER_PLAN_FILE"
    other: list[Any] = []
    strategy = measuring(clock, other, make("lstm"), monkeypatch)
    strategy.run(Work(loss_fn, batch("lstm", 8, 0)))
    assert other == [("single", 1)]
