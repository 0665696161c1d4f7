# SPDX-License-Identifier: BSD-3-Clause
"""Devices that differ: shares of the batch by speed, and the warning about a small one."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest
import torch

from teamster.parallel.balance import Speeds, Weighing, describe_imbalance, warn_of_imbalance
from teamster.parallel.scattering import Chunk


def facts(memory: int, cores: int) -> SimpleNamespace:
    return SimpleNamespace(total_memory=memory, multi_processor_count=cores)


@pytest.mark.parametrize(
    ("both", "told"),
    [
        ([facts(100, 10), facts(100, 10)], ""),
        ([facts(75, 10), facts(100, 10)], ""),
        ([facts(74, 10), facts(100, 10)], "device a has 74% of the memory of device b"),
        ([facts(100, 10), facts(100, 5)], "device b has 50% of the cores of device a"),
        ([facts(100, 10)], ""),
    ],
)
def test_both_devices_are_named_with_what_to_do(both: list[SimpleNamespace], told: str) -> None:
    found = describe_imbalance(["a", "b"][: len(both)], both)
    assert told in found
    assert bool(found) == bool(told)
    assert not found or ("device_ids" in found and "weights" in found)


def test_the_smallest_is_compared_with_the_largest() -> None:
    assert "device c has 10% of the memory of device b" in describe_imbalance(
        "abc", [facts(50, 1), facts(100, 1), facts(10, 1)]
    )


def test_gpus_are_asked_and_cpus_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    small_first = {0: facts(10, 5), 1: facts(100, 5)}
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: small_first[device.index]
    )
    with pytest.warns(UserWarning, match="device cuda:0 has 10% of the memory of device cuda:1"):
        warn_of_imbalance([torch.device("cuda", 0), torch.device("cuda", 1)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_imbalance([torch.device("cpu")] * 2)
        warn_of_imbalance([torch.device("cuda", 1)] * 2)


def chunks(*sizes: int, indices: tuple[int, ...] = (0, 1)) -> list[Chunk]:
    return [
        Chunk((), {}, size, torch.device("cpu"), index)
        for size, index in zip(sizes, indices, strict=False)
    ]


def warm(devices: int) -> Speeds:
    """After the first pass, of which nothing is learned."""
    speeds = Speeds(devices)
    speeds.learn(chunks(10, 10), {0: 1, 1: 10**9})
    assert speeds.weights == [1.0] * devices
    return speeds


def test_speeds_are_samples_by_time() -> None:
    speeds = warm(2)
    speeds.learn(chunks(10, 10), {0: 100, 1: 400})
    assert speeds.weights == [0.1, 0.025]


def test_the_newest_measurement_counts_half() -> None:
    speeds = warm(2)
    speeds.learn(chunks(10, 10), {0: 100, 1: 100})
    speeds.learn(chunks(10, 10), {0: 50, 1: 100})
    assert speeds.weights == pytest.approx([0.15, 0.1])


def test_the_slowest_device_gets_a_twentieth_of_the_fastest_at_least() -> None:
    speeds = warm(2)
    speeds.learn(chunks(10, 10), {0: 1, 1: 1_000_000})
    assert speeds.weights == [10.0, 0.5]


def test_a_device_that_had_nothing_yet_counts_as_the_fastest() -> None:
    speeds = warm(3)
    speeds.learn(chunks(10, 10, indices=(0, 2)), {0: 100, 1: 200})
    assert speeds.weights == [0.1, 0.1, 0.05]


def test_every_device_is_measured_again() -> None:
    weighing = Weighing(2, "measured")
    for _ in range(2):
        weighing.learn(chunks(4, 4), {0: 1, 1: 10**9})  # somebody was in its way
    assert weighing.sizes(8, 2) == [7, 1]
    assert weighing.sizes(1, 2) == [1, 0]
    assert Weighing(2, [1, 0]).sizes(8, 2) == [8, 0]  # which is obeyed
    assert Weighing(2, [0, 1]).sizes(8, 2) == [1, 7]  # but for the first: it has the module
    assert Weighing(3, [1, 2, 3]).sizes(8, 2) == [4, 4]  # a trial of fewer
