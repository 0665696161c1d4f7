# SPDX-License-Identifier: BSD-3-Clause
"""`DataParallel` as an object: what it refuses, keeps, copies, tells and ends."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import warnings
from typing import Any

import pytest
import torch
from torch import nn

import teamster as ts
from teamster.parallel import DataParallel, data_parallel
from teamster.parallel.auto import StepKind
from teamster.parallel.wrapper import DataParallel as Wrapper
from tests.parallel.models import mlp


def test_a_module_that_changes_is_replicated_again() -> None:
    parallel = DataParallel(mlp(), 2)
    x = torch.randn(4, 6)
    parallel(x).sum().backward()
    parallel.module[2] = nn.Linear(16, 2)
    assert parallel(x).shape == (4, 2)
    parallel.module[0].weight.requires_grad_(False)
    parallel.zero_grad()
    parallel(x).sum().backward()
    assert parallel.module[0].weight.grad is None
    parallel.module.append(nn.Dropout(0.5))
    parallel.eval()
    torch.testing.assert_close(parallel(x), parallel.module(x))
    with torch.no_grad():
        parallel.module[2].weight.data = torch.zeros(2, 16)
        parallel.module[2].bias.zero_()
    assert parallel(x).abs().sum() == 0
    before = parallel._runtime.cpu.replicas.built
    for _ in range(5):
        parallel(x)
    assert parallel._runtime.cpu.replicas.built == before  # and not when it does not change
    parallel.close()


def test_what_a_forward_sets_on_its_module_is_gone_in_the_next() -> None:
    class Counting(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert not hasattr(self, "seen")
            self.seen = x
            return x

    parallel = DataParallel(Counting(), 2)
    for _ in range(3):
        parallel(torch.randn(4, 6))
    parallel.close()


def test_inside_of_forward_parameters_can_be_listed() -> None:
    class Asking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x.to(next(self.parameters()).dtype))

    parallel = DataParallel(Asking(), 2)
    assert parallel(torch.randn(4, 3, dtype=torch.float32)).dtype == torch.float64
    parallel.close()


def test_an_exception_arrives_as_its_own_type_with_its_device() -> None:
    class Failing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if (x == 3).any():
                raise KeyError("three")
            return x

    parallel = DataParallel(Failing(), 2)
    with pytest.raises(KeyError) as caught:
        parallel(torch.arange(4.0))
    assert caught.value.__notes__ == ["in replica 1 on device cpu"]
    assert caught.traceback[-1].name == "forward"
    assert parallel(torch.arange(2.0)).tolist() == [0, 1]  # and it goes on
    parallel.close()


def test_state_that_the_threads_take_over() -> None:
    seen: list[tuple[bool, bool, bool, torch.dtype, Any]] = []
    import contextvars

    variable = contextvars.ContextVar("variable", default="none")

    class Looking(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            autocast = torch.is_autocast_enabled("cpu")
            seen.append(
                (
                    torch.is_grad_enabled(),
                    torch.is_inference_mode_enabled(),
                    autocast,
                    torch.get_autocast_dtype("cpu"),
                    variable.get(),
                )
            )
            return x

    parallel = DataParallel(Looking(), 2)
    x = torch.randn(4, 2)
    variable.set("mine")
    with torch.autocast("cpu", dtype=torch.float16):
        parallel(x)
    with torch.inference_mode():
        parallel(x)
    with torch.no_grad():
        parallel(x)
    assert {each[4] for each in seen} == {"mine"}
    assert [each[:4] for each in seen[:2]] == [(True, False, True, torch.float16)] * 2
    assert [each[:3] for each in seen[2:4]] == [(False, True, False)] * 2
    assert [each[:3] for each in seen[4:]] == [(False, False, False)] * 2
    parallel.close()


def test_default_device_and_saved_tensor_hooks_reach_the_replicas() -> None:
    class Making(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.made = torch.empty(1).device
            devices.append(self.made.type)
            return x.exp()

    devices: list[str] = []
    packed: list[int] = []
    parallel = DataParallel(Making(), 2)
    x = torch.randn(4, 2, requires_grad=True)
    with torch.device("meta"):
        parallel(x)
    assert devices == ["meta", "meta"]
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: packed.append(1) or tensor, lambda tensor: tensor
    ):
        parallel(x).sum().backward()
    assert len(packed) >= 2
    parallel.close()


def test_copies_pickles_and_state_dicts() -> None:
    parallel = DataParallel(mlp(), 2, loss=nn.MSELoss())
    x, y = torch.randn(4, 6), torch.randn(4, 3)
    expected = parallel(x, y)
    for other in (copy.deepcopy(parallel), pickle.loads(pickle.dumps(parallel))):
        torch.testing.assert_close(other(x, y), expected)
        assert (
            list(other.state_dict())
            == list(parallel.state_dict())
            == [f"module.{name}" for name in parallel.module.state_dict()]
        )
        other.close()
    parallel.close()


def test_attributes_of_the_wrapped_module() -> None:
    module = mlp()
    module.classes = 3  # type: ignore[assignment]
    parallel = DataParallel(module, 2)
    assert parallel.classes == 3
    with pytest.raises(AttributeError, match="no_such"):
        _ = parallel.no_such
    parallel.close()


@pytest.mark.parametrize(
    "arguments",
    [
        {"device_ids": []},
        {"device_ids": 0},
        {"device_ids": ["cpu", "cuda:7"]},
        {"device_ids": "cpu"},
        {"device_ids": [None]},
        {"device_ids": ["nonsense"]},
        {"device_ids": 2, "weights": [1]},
    ],
)
def test_bad_arguments_get_one_clear_line(arguments: dict[str, Any]) -> None:
    with pytest.raises(ts.UsageError) as caught:
        DataParallel(mlp(), **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="numbers name GPUs here")
def test_numbers_of_gpus_that_are_not_there_are_refused() -> None:
    with pytest.raises(ts.UsageError, match="no accelerator"):
        DataParallel(mlp(), [0, 1])


def test_inputs_that_torch_would_lose() -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x.sum(1)

    parallel = DataParallel(Two(), 8)
    with pytest.raises(ts.UsageError, match="their sizes differ, 10 in shape"):
        parallel(torch.randn(10, 2), torch.randn(8, 2))
    assert parallel(torch.randn(10, 2), torch.randn(10, 2)).shape == (10,)
    assert parallel.report().replicas == 8
    with pytest.raises(ts.UsageError, match=r"wrapped in torch\.compile"):
        DataParallel(torch.compile(mlp(), backend="eager"), 2)
    with pytest.raises(ts.UsageError, match="no dimension 1"):
        DataParallel(mlp(), 2, dim=1)(torch.randn(3))
    parallel.close()


def test_a_module_on_another_device_is_named() -> None:
    parallel = DataParallel(mlp(), 2)
    parallel.module[0].to("meta")
    with pytest.raises(ts.UsageError, match=r"'0\.weight' is on device meta"):
        parallel(torch.randn(2, 6))


def test_batches_smaller_than_the_devices_and_empty_ones() -> None:
    parallel = DataParallel(mlp(), 4)
    assert parallel(torch.randn(2, 6)).shape == (2, 3)
    assert parallel.report().replicas == 2
    assert parallel(torch.randn(0, 6)).shape == (0, 3)
    assert parallel(torch.randn(1, 6)).shape == (1, 3)
    parallel.close()


def test_weights_and_other_dimensions() -> None:
    class Sizes(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.full_like(x, x.shape[1])

    parallel = DataParallel(Sizes(), 2, dim=1, weights=[3, 1])
    assert parallel(torch.zeros(1, 8)).tolist() == [[6.0] * 6 + [2.0] * 2]
    parallel.close()
    measured = DataParallel(mlp(), 2, weights="measured")
    for _ in range(5):
        assert measured(torch.randn(64, 6)).shape == (64, 3)
    measured.close()


def test_one_call_by_the_function() -> None:
    plain = mlp()
    x = torch.randn(5, 6)
    found = data_parallel(plain, x, ["cpu", "cpu"])
    torch.testing.assert_close(found, plain(x))
    found.sum().backward()
    assert plain[0].weight.grad is not None


def test_without_device_ids_a_trial_decides() -> None:
    parallel = DataParallel(mlp())
    for _ in range(20):
        assert parallel(torch.randn(8, 6)).shape == (8, 3)
    trial = parallel._runtime.choosing.begin(StepKind(by_step=False, with_grad=True, training=True))
    assert not trial.turn.counts  # nothing is tried any more
    with torch.no_grad():
        parallel.eval()(torch.randn(8, 6))
    assert parallel._runtime.choosing.begin(
        StepKind(by_step=False, with_grad=False, training=False)
    ).turn.counts
    parallel.close()


def test_small_operations_get_one_hint() -> None:
    deep = nn.Sequential(*[nn.Linear(4, 4) for _ in range(60)])
    parallel = DataParallel(deep, 2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(20):
            parallel(torch.randn(4, 4)).sum().backward()
    assert len([each for each in caught if "compute at one time" in str(each.message)]) <= 1
    parallel.close()


def test_threads_end_with_the_object() -> None:
    parallel = DataParallel(mlp(), 3)
    for _ in range(2):  # the first pass is looked at, in turn
        parallel(torch.randn(6, 6)).sum().backward()
    assert sum(thread.name.startswith("teamster-replica") for thread in threading.enumerate()) >= 3
    before = {
        thread for thread in threading.enumerate() if thread.name.startswith("teamster-replica")
    }
    mine = {thread._thread for thread in parallel._runtime.threads[3]._lockstep._threads}
    del parallel
    gc.collect()
    for thread in mine:
        thread.join(5)
        assert not thread.is_alive()
    assert mine <= before


def test_what_the_caller_has_set_for_its_own_threads_stays() -> None:
    before = torch.get_num_threads()
    parallel = DataParallel(mlp(), 2)
    parallel(torch.randn(6, 6))
    assert torch.get_num_threads() == before
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert found == [before]
    parallel.close()


def test_steps_are_on_the_timeline_and_in_the_report() -> None:
    parallel = DataParallel(mlp(), 2)
    with ts.record() as recording:
        for _ in range(3):
            parallel(torch.randn(20_000, 6)).sum().backward()
            parallel.step(lambda module, x: module(x).mean(), torch.randn(20_000, 6))
    lanes = {
        lane.label: {recording.timeline.names[name] for name in lane.spans.name}
        for lane in recording.timeline.lanes
    }
    assert {"replica 0", "replica 1"} <= lanes.keys()
    assert {"forward", "backward"} <= lanes["replica 0"] & lanes["replica 1"]
    report = parallel.report()
    assert report.steps == 6
    assert set(report.seconds) == {
        "scatter",
        "replicate",
        "forward",
        "gather",
        "backward",
        "reduce",
    }
    assert set(report.by_replica) == {0, 1}
    assert "6 steps on 2 replicas" in str(report)
    parallel.close()


def test_it_works_inside_of_a_worker() -> None:
    def task(seed: int) -> float:
        torch.manual_seed(seed)
        parallel = Wrapper(nn.Linear(2, 2), 2)
        total = parallel(torch.ones(4, 2)).sum().item()
        parallel.close()
        return total

    first, second = ts.map(task, [1, 1], backend="process", workers=2)
    assert first == second


def test_a_thousand_rounds_leak_neither_threads_nor_memory() -> None:
    import os

    import psutil

    parallel = DataParallel(mlp(), 2)
    process = psutil.Process(os.getpid())

    def rounds(count: int) -> None:
        for _ in range(count):
            parallel(torch.randn(16, 6)).sum().backward()

    rounds(200)
    threads, memory = threading.active_count(), process.memory_info().rss
    rounds(1_000)
    assert threading.active_count() == threads
    assert process.memory_info().rss - memory < 16 << 20
    parallel.close()
