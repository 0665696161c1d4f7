# SPDX-License-Identifier: BSD-3-Clause
"""What of the caller's state another thread sees, and that nothing of it stays there."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import nn

from teamster.parallel import parallel_apply
from teamster.parallel.thread_state import ThreadState, carry_all

CPU = torch.device("cpu")
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")


def state() -> dict[str, Any]:
    return {
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "dtype": torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None,
        "cache": torch.is_autocast_cache_enabled(),
        "device": torch.get_default_device(),
        "variable": variable.get(),
        "default": torch.get_default_dtype(),
    }


def elsewhere(function: Callable[[], Any]) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "nothing": lambda: torch.enable_grad(),
    "no_grad": lambda: torch.no_grad(),
    "inference": lambda: torch.inference_mode(),
    "bfloat16": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "float16": lambda: torch.autocast("cpu", dtype=torch.float16),
    "without a cache": lambda: torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False),
    "device": lambda: torch.device("meta"),
}


@pytest.mark.parametrize("name", MODES)
def test_another_thread_sees_the_callers_state_and_is_left_as_it_was(name: str) -> None:
    token = variable.set("mine")
    with MODES[name]():
        expected, carried = state(), ThreadState(CPU)

    def look() -> tuple[Any, Any, Any]:
        before = state()
        return before, carried.run(state), state()

    before, inside, after = elsewhere(look)
    variable.reset(token)
    assert inside == expected
    assert after == before


def test_modes_inside_of_modes_are_carried_together() -> None:
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.float16), torch.device("meta"):
        expected, carried = state(), ThreadState(CPU)
    assert elsewhere(lambda: carried.run(state)) == expected


def test_a_mode_of_the_thread_that_the_caller_does_not_have_is_off() -> None:
    carried = ThreadState(CPU)

    def look() -> Any:
        with torch.no_grad():
            return carried.run(torch.is_grad_enabled)

    assert elsewhere(look) is True


def test_state_is_put_back_after_an_exception() -> None:
    with torch.no_grad():
        carried = ThreadState(CPU)

    def failing() -> None:
        raise LookupError

    def look() -> Any:
        with pytest.raises(LookupError):
            carried.run(failing)
        return torch.is_grad_enabled()

    assert elsewhere(look) is True


def test_hooks_on_saved_tensors_are_the_callers() -> None:
    packed: list[torch.Tensor] = []

    def work() -> None:
        torch.ones(2, requires_grad=True).exp()

    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: packed.append(tensor) or tensor, lambda tensor: tensor
    ):
        carried = ThreadState(CPU)
    elsewhere(lambda: carried.run(work))
    elsewhere(work)
    assert len(packed) == 1


def test_what_replicas_set_in_the_context_does_not_reach_each_other_or_the_caller() -> None:
    carried = ThreadState(CPU)
    assert (
        elsewhere(lambda: carried.run(lambda: variable.set("theirs") and variable.get()))
        == "theirs"
    )
    assert elsewhere(lambda: carried.run(variable.get)) == "nothing"
    assert variable.get() == "nothing"


def test_replicas_on_one_device_share_what_is_carried() -> None:
    meta = torch.device("meta")
    first, second, third = carry_all([CPU, meta, CPU])
    assert first is third
    assert first is not second


def test_replicas_see_it_all() -> None:
    class Looking(nn.Module):
        def forward(self) -> dict[str, Any]:
            return state()

    token = variable.set("mine")
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.float16):
        expected, found = state(), parallel_apply([Looking()] * 3, [()] * 3)
    variable.reset(token)
    assert found == [expected] * 3
