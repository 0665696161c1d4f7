# SPDX-License-Identifier: BSD-3-Clause
"""What is logged arrives, in all forms, and holds no step."""

from __future__ import annotations

import json
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from teamster.errors import UsageError
from teamster.train import Trainer
from teamster.train.logs import Log, loggers_of


def trainer_of(*loggers: Any) -> Trainer:
    model = nn.Linear(1, 1)
    return Trainer(model, torch.optim.SGD(model.parameters()), "single", loggers=loggers)


def test_event_files_are_read_by_the_official_reader(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    with trainer_of(tmp_path) as trainer:
        for number in range(3):
            trainer.log(loss=torch.tensor(1.0 / (1 + number)), rate=0.5)
            trainer.step(lambda module, x: module(x).mean(), torch.ones(2, 1))
        trainer.log_image("picture", torch.rand(3, 4, 5))
        trainer.log_text("note", "hello")
        trainer.log_histogram("weights", torch.randn(100))
    found = EventAccumulator(str(tmp_path)).Reload()
    assert [(each.step, each.value) for each in found.Scalars("loss")] == [
        (0, 1.0),
        (1, 0.5),
        (2, pytest.approx(1 / 3)),
    ]
    assert [each.value for each in found.Scalars("rate")] == [0.5] * 3
    assert found.Tags()["images"] == ["picture"]
    assert found.Tags()["histograms"] == ["weights"]
    assert found.Tags()["tensors"] == ["note/text_summary"]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2, 3]
    assert lines[0]["loss"] == 1.0
    assert lines[3]["note"] == "hello"


def test_a_full_queue_drops_the_oldest_and_counts() -> None:
    seen: list[Any] = []
    may_go, has_begun = threading.Event(), threading.Event()

    def slow(record: Any) -> None:
        has_begun.set()
        may_go.wait(60.0)
        seen.append(record.values["number"])

    log = Log(lambda: loggers_of([slow]), most=3)
    log.add("scalars", 0, {"number": 0})
    assert has_begun.wait(60.0)
    for number in range(1, 9):
        log.add("scalars", number, {"number": number})
    may_go.set()
    log.close()
    assert seen == [0.0, 6.0, 7.0, 8.0]
    assert log.dropped == 5


def test_a_logger_that_fails_is_said_once_and_the_others_go_on() -> None:
    seen: list[Any] = []

    def fails(record: Any) -> None:
        raise OSError("the disk is full")

    log = Log(lambda: loggers_of([fails, seen.append]))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number in range(3):
            log.add("scalars", number, {"loss": 1.0})
        log.close()
    assert [str(each.message) for each in caught] == [
        "nothing more is logged by _Calling: OSError('the disk is full')"
    ]
    assert [record.step for record in seen] == [0, 1, 2]


def test_what_is_no_logger_is_one_line() -> None:
    with pytest.raises(UsageError, match="loggers= takes folders and functions of a record"):
        trainer_of(3)


def test_a_line_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters())
    with Trainer(model, optimizer, "single", progress=True) as trainer:
        for x in trainer.batches([torch.ones(4, 1)] * 3):
            loss = trainer.step(lambda module, x: module(x).mean(), x)
            trainer.log(loss=loss)
            while not trainer._line._values:  # a thread reads it
                time.sleep(0.001)
    line = capsys.readouterr().err.rpartition("\r")[2]
    assert "3/3" in line
    assert "loss " in line
    assert "samples/s" in line


def test_no_line_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with trainer_of() as trainer:
        assert len(list(trainer.batches([torch.ones(4, 1)] * 3))) == 3
    assert capsys.readouterr().err == ""
