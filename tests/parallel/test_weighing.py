# SPDX-License-Identifier: BSD-3-Clause
"""Speeds of devices: learned from forward passes, never so small that a device is left out for good."""

from __future__ import annotations

import pytest
import torch

from teamster.parallel.scattering import Piece
from teamster.parallel.weighing import Speeds, Weighing


def pieces(*sizes: int, indices: tuple[int, ...] = (0, 1)) -> list[Piece]:
    return [Piece((), {}, size, torch.device("cpu"), index) for size, index in zip(sizes, indices, strict=False)]


def warm(devices: int) -> Speeds:
    """After the first pass, of which nothing is learned."""
    speeds = Speeds(devices)
    speeds.learn(pieces(10, 10), {0: 1, 1: 10**9})
    assert speeds.weights == [1.0] * devices
    return speeds


def test_speeds_are_samples_by_time() -> None:
    speeds = warm(2)
    speeds.learn(pieces(10, 10), {0: 100, 1: 400})
    assert speeds.weights == [0.1, 0.025]


def test_the_newest_measurement_counts_half() -> None:
    speeds = warm(2)
    speeds.learn(pieces(10, 10), {0: 100, 1: 100})
    speeds.learn(pieces(10, 10), {0: 50, 1: 100})
    assert speeds.weights == pytest.approx([0.15, 0.1])


def test_the_slowest_device_gets_a_twentieth_of_the_fastest_at_least() -> None:
    speeds = warm(2)
    speeds.learn(pieces(10, 10), {0: 1, 1: 1_000_000})
    assert speeds.weights == [10.0, 0.5]


def test_a_device_that_had_nothing_yet_counts_as_the_fastest() -> None:
    speeds = warm(3)
    speeds.learn(pieces(10, 10, indices=(0, 2)), {0: 100, 1: 200})
    assert speeds.weights == [0.1, 0.1, 0.05]


def test_every_device_is_measured_again() -> None:
    weighing = Weighing(2, "measured")
    for _ in range(2):
        weighing.learn(pieces(4, 4), {0: 1, 1: 10**9})  # somebody was in its way
    assert weighing.sizes(8, 2) == [7, 1]
    assert weighing.sizes(1, 2) == [1, 0]
    assert Weighing(2, [1, 0]).sizes(8, 2) == [8, 0]  # which is obeyed
    assert Weighing(2, [0, 1]).sizes(8, 2) == [1, 7]  # but for the first: it has the module
    assert Weighing(3, [1, 2, 3]).sizes(8, 2) == [4, 4]  # a trial of fewer
