# SPDX-License-Identifier: BSD-3-Clause
"""The warning where one device is much smaller than another."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest
import torch

from teamster.parallel.balance import describe_imbalance, warn_of_imbalance


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
    assert "device c has 10% of the memory of device b" in describe_imbalance("abc", [facts(50, 1), facts(100, 1), facts(10, 1)])


def test_gpus_are_asked_and_cpus_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    small_first = {0: facts(10, 5), 1: facts(100, 5)}
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: small_first[device.index])
    with pytest.warns(UserWarning, match="device cuda:0 has 10% of the memory of device cuda:1"):
        warn_of_imbalance([torch.device("cuda", 0), torch.device("cuda", 1)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_imbalance([torch.device("cpu")] * 2)
        warn_of_imbalance([torch.device("cuda", 1)] * 2)
