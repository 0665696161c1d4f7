# SPDX-License-Identifier: BSD-3-Clause
"""Speeds of devices: learned from forward passes, never so small that a device is left out for good."""

from __future__ import annotations

import pytest
import torch

from teamster.parallel.scattering import Piece
from teamster.parallel.weighing import Speeds


def pieces(*sizes: int, indices: tuple[int, ...] = (0, 1)) -> list[Piece]:
    return [Piece((), {}, size, torch.device("cpu"), index) for size, index in zip(sizes, indices, strict=False)]


def test_speeds_are_samples_by_time() -> None:
    speeds = Speeds(2)
    speeds.learn(pieces(10, 10), {0: 100, 1: 400})
    assert speeds.weights == [0.1, 0.025]


def test_the_newest_measurement_counts_half() -> None:
    speeds = Speeds(2)
    speeds.learn(pieces(10, 10), {0: 100, 1: 100})
    speeds.learn(pieces(10, 10), {0: 50, 1: 100})
    assert speeds.weights == pytest.approx([0.15, 0.1])


def test_the_slowest_device_gets_a_twentieth_of_the_fastest_at_least() -> None:
    speeds = Speeds(2)
    speeds.learn(pieces(10, 10), {0: 1, 1: 1_000_000})
    assert speeds.weights == [10.0, 0.5]


def test_a_device_that_had_nothing_yet_counts_as_the_fastest() -> None:
    speeds = Speeds(3)
    speeds.learn(pieces(10, 10, indices=(0, 2)), {0: 100, 1: 200})
    assert speeds.weights == [0.1, 0.1, 0.05]
