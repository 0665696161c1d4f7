# SPDX-License-Identifier: BSD-3-Clause
"""What names of devices mean, with and without accelerators."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from teamster.errors import UsageError
from teamster.tensors import devices as module
from teamster.tensors.devices import accelerator, as_device, as_devices


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that says that it has two GPUs; nothing is put on them."""
    monkeypatch.setattr(module, "accelerator", lambda: "cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "accelerator", lambda: "cpu")


def test_the_accelerator_is_named() -> None:
    assert accelerator() == ("cuda" if torch.cuda.is_available() else accelerator())
    assert isinstance(torch.device(accelerator()), torch.device)


@pytest.mark.parametrize("name", ["cpu", "cpu:0", -1, torch.device("cpu"), torch.device("cpu", 0)])
def test_the_cpu_has_one_name(name: Any) -> None:
    assert as_device(name) == torch.device("cpu")


@pytest.mark.parametrize("name", [True, None, 1.0, b"cpu", ["cpu"]])
def test_what_is_no_name_is_refused_with_its_type(name: Any) -> None:
    with pytest.raises(UsageError, match=type(name).__name__):
        as_device(name)


def test_a_name_that_torch_does_not_know_is_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match="'nonsense'") as caught:
        as_device("nonsense")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("name", [0, 3, -2, "cuda", "cuda:1"])
def test_without_a_gpu_none_can_be_named(name: Any) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        as_device(name)


@pytest.mark.usefixtures("no_gpu")
def test_a_number_of_devices_means_replicas_on_the_cpu() -> None:
    assert as_devices(3) == [torch.device("cpu")] * 3


@pytest.mark.usefixtures("two_gpus")
def test_numbers_count_gpus_where_there_are_some() -> None:
    assert as_devices(2) == [torch.device("cuda", 0), torch.device("cuda", 1)]
    assert as_devices([1, "cuda:0"]) == [torch.device("cuda", 1), torch.device("cuda", 0)]
    assert as_device("cuda") == torch.device("cuda", 0)
    assert as_device(-1) == torch.device("cpu")
    assert as_devices(["cpu", "cpu"]) == [torch.device("cpu")] * 2


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("name", [2, "cuda:2", -2])
def test_a_gpu_that_is_not_there_is_refused(name: Any) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        as_device(name)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("names", "told"), [([0, 0], "twice"), ([0, "cpu"], "several kinds"), (3, "does not exist")]
)
def test_lists_that_make_no_team_are_refused(names: Any, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        as_devices(names)


@pytest.mark.parametrize("names", [[], (), 0, -1, True, "cpu", torch.device("cpu")])
def test_device_ids_are_a_list_or_a_number(names: Any) -> None:
    with pytest.raises(UsageError, match="device_ids"):
        as_devices(names)
