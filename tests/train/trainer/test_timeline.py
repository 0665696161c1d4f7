# SPDX-License-Identifier: BSD-3-Clause
"""What a training does is on the timeline, in all of its ranks."""

from __future__ import annotations

import torch
from torch import nn

import teamster as ts
from teamster.train import Trainer


def phases(recording: ts.Recording) -> dict[str, set[str]]:
    """What is on each lane."""
    timeline = recording.timeline
    return {
        lane.label: {timeline.names[row[4]] for row in lane.spans.rows()} - {""}
        for lane in timeline.lanes
    }


def loss_fn(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return module(x).square().mean()


def test_the_phases_of_all_ranks() -> None:
    model = nn.Sequential(nn.Linear(600, 600), nn.Linear(600, 600))
    optimizer = torch.optim.Adam(model.parameters())
    with Trainer(model, optimizer, "ddp", 2) as trainer:
        trainer.step(loss_fn, torch.ones(64, 600))
        with ts.record() as recording:
            for _ in range(3):
                trainer.step(loss_fn, torch.ones(64, 600))
    found = phases(recording)
    assert found["caller"] >= {"forward", "backward", "reduce", "update"}
    assert found["rank 1"] >= {"forward", "backward"}


def test_the_phases_of_one() -> None:
    model = nn.Linear(600, 600)
    with Trainer(model, torch.optim.Adam(model.parameters()), "single") as trainer:
        with ts.record() as recording:
            trainer.step(loss_fn, torch.ones(64, 600))
    assert phases(recording)["caller"] >= {"forward", "backward", "update"}
