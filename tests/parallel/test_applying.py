# SPDX-License-Identifier: BSD-3-Clause
"""All replicas at once: their arguments, devices, state and exceptions."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import nn

from teamster.errors import UsageError
from teamster.parallel import DataParallel, applying, data_parallel, parallel_apply
from tests.conftest import RunScript

TWO = ["cpu", "cpu"]
TWO_GPUS = torch.cuda.is_available() and torch.cuda.device_count() > 1


def two_layers() -> tuple[list[nn.Module], list[torch.Tensor]]:
    return [nn.Linear(10, 5), nn.Linear(10, 5)], [torch.randn(2, 10), torch.randn(3, 10)]


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("devices", [None, TWO, [None, "cpu"]])
def test_each_module_gets_its_own_input(wrapped: bool, devices: Any) -> None:
    modules, inputs = two_layers()
    found = parallel_apply(
        modules, [(each,) for each in inputs] if wrapped else inputs, None, devices
    )
    for output, module, given in zip(found, modules, inputs, strict=True):
        torch.testing.assert_close(output, module(given))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_reaches_the_replicas_with_its_dtype(dtype: torch.dtype) -> None:
    modules, inputs = two_layers()
    with torch.autocast("cpu", dtype=dtype):
        expected = [module(given) for module, given in zip(modules, inputs, strict=True)]
        found = parallel_apply(modules, inputs)
    assert {each.dtype for each in found} == {dtype}
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    # And is gone afterwards
    assert {each.dtype for each in parallel_apply(modules, inputs)} == {torch.float32}


def test_autocast_that_the_module_sets_itself() -> None:
    class Casting(nn.Linear):
        @torch.autocast("cpu", dtype=torch.float16)
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x)

    parallel = DataParallel(Casting(8, 8), 2)
    assert parallel(torch.randn(8, 8)).dtype == torch.float16
    parallel.close()


def test_keyword_arguments_are_the_modules_own() -> None:
    class Adding(nn.Module):
        def forward(self, x: torch.Tensor, plus: float = 0.0) -> torch.Tensor:
            return x + plus

    found = parallel_apply([Adding(), Adding()], [torch.zeros(1)] * 2, [{"plus": 1.0}, {}])
    assert [each.item() for each in found] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("given", "named", "devices"), [(1, None, None), (2, 1, None), (2, 2, 1), (3, 2, 2)]
)
def test_numbers_that_differ_are_refused(
    given: int, named: int | None, devices: int | None
) -> None:
    with pytest.raises(UsageError, match="has 2 modules and"):
        parallel_apply(
            [nn.Identity()] * 2,
            [torch.ones(1)] * given,
            None if named is None else [{}] * named,
            None if devices is None else ["cpu"] * devices,
        )


def test_no_modules_give_no_outputs() -> None:
    assert parallel_apply([], []) == []


class Failing(nn.Module):
    def forward(self, *_: Any) -> Any:
        return {}["wonderful"]


def test_an_exception_keeps_its_type_its_place_and_its_traceback() -> None:
    with pytest.raises(KeyError, match="wonderful") as caught:
        parallel_apply([Failing(), Failing()], [None, None])
    assert caught.value.__notes__ == ["in replica 0 on device cpu"]
    assert caught.traceback[-1].name == "forward"


def test_of_several_exceptions_the_first_replicas_arrives_when_all_have_ended() -> None:
    ended: list[int] = []

    class Third(nn.Module):
        def forward(self, number: int) -> int:
            try:
                if number:
                    raise ValueError(f"number {number}")
                return number
            finally:
                ended.append(number)

    with pytest.raises(ValueError, match="number 1") as caught:
        parallel_apply([Third()] * 4, [(0,), (1,), (2,), (0,)], devices=["cpu"] * 4)
    assert caught.value.__notes__ == ["in replica 1 on device cpu"]
    assert sorted(ended) == [0, 0, 1, 2]
    assert parallel_apply([Third()] * 4, [(0,)] * 4, devices=["cpu"] * 4) == [0] * 4


def test_replicas_run_at_one_time_in_threads_that_stay() -> None:
    barrier = threading.Barrier(3)
    seen: list[threading.Thread] = []

    class Meeting(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            barrier.wait(10)
            seen.append(threading.current_thread())
            return x

    for _ in range(3):
        parallel_apply([Meeting()] * 3, [torch.ones(1)] * 3)
    assert len(set(seen)) == 3
    assert threading.main_thread() not in seen


NESTED = """
import torch
from torch import nn
from teamster.parallel import parallel_apply

class Outer(nn.Module):
    def forward(self, x):
        return sum(parallel_apply([nn.Identity()] * 2, [x, x]))

print([each.item() for each in parallel_apply([Outer(), Outer()], [torch.ones(1), torch.ones(1)])])
"""


def test_parallel_apply_works_inside_of_parallel_apply(run_script: RunScript) -> None:
    found = run_script(NESTED, timeout=60)
    assert found.stdout.strip() == "[2.0, 2.0]", found.stderr


def test_one_data_parallel_inside_of_another() -> None:
    inner = DataParallel(nn.Linear(3, 3), 2)
    plain = nn.Sequential(inner.module, nn.Tanh())
    outer, x = DataParallel(nn.Sequential(inner, nn.Tanh()), 2), torch.randn(8, 3)
    torch.testing.assert_close(outer(x), plain(x))
    outer(x).sum().backward()
    found, inner.module.weight.grad = inner.module.weight.grad, None
    plain(x).sum().backward()
    torch.testing.assert_close(found, inner.module.weight.grad)
    outer.close()
    inner.close()


def test_cores_are_shared_out_among_replicas_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applying, "usable_cores", lambda: 8)
    cpu = torch.device("cpu")
    assert [applying.inner_threads([cpu] * count) for count in (1, 2, 3, 16)] == [8, 4, 2, 1]
    assert applying.inner_threads([torch.device("cuda", 0)]) is None


class Several(nn.Module):
    def forward(
        self, a: torch.Tensor, b: torch.Tensor, factor: float, c: torch.Tensor | None = None
    ) -> torch.Tensor:
        return factor * (a * b if c is None else a * b + c)


@pytest.mark.parametrize("devices", [TWO, ["cpu"], 3])
@pytest.mark.parametrize("named", [False, True])
def test_several_inputs_with_and_without_keywords(devices: Any, named: bool) -> None:
    a, b = torch.randn(5, 5, requires_grad=True), torch.randn(5, 5, requires_grad=True)
    kwargs = {"c": torch.randn(5, 5)} if named else None
    expected = Several()(a, b, 1.5, **(kwargs or {}))
    gradients = torch.autograd.grad(expected.sum(), (a, b))
    found = data_parallel(Several(), (a, b, 1.5), devices, module_kwargs=kwargs)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found.sum(), (a, b)), gradients)
    parallel = DataParallel(Several(), devices)
    torch.testing.assert_close(parallel(a, b, 1.5, **(kwargs or {})), expected)
    parallel.close()


def test_nested_inputs() -> None:
    class Inner(nn.Module):
        def forward(self, *given: Any) -> torch.Tensor:
            return given[1][0]

    x = torch.randn(20, 3)
    assert torch.equal(data_parallel(Inner(), (x.cos(), (x.sin(), x), x), TWO), x.sin())


@pytest.mark.parametrize("unused", [None, [], {}, ()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_keyword_arguments_alone_with_empty_containers(unused: Any, dtype: torch.dtype) -> None:
    class Picking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(10, 5, dtype=dtype)

        def forward(self, given: dict[str, Any]) -> torch.Tensor:
            assert given["unused"] == unused
            return self.linear(given["data"])

    parallel, x = DataParallel(Picking(), 2), torch.randn(20, 10, dtype=dtype)
    torch.testing.assert_close(
        parallel(given={"data": x, "unused": unused}), parallel.module.linear(x)
    )
    parallel.close()


def test_a_module_without_inputs_runs_once() -> None:
    class Constant(nn.Module):
        def forward(self) -> torch.Tensor:
            return torch.ones(2, 3)

    assert torch.equal(data_parallel(Constant(), (), TWO), torch.ones(2, 3))
    assert torch.equal(data_parallel(Constant(), None, TWO), torch.ones(2, 3))
    parallel = DataParallel(Constant(), 2)
    assert torch.equal(parallel(), torch.ones(2, 3))
    parallel.close()


def test_gradients_are_off_where_the_caller_has_them_off() -> None:
    class Checking(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert not torch.is_grad_enabled()
            return x

    x = torch.randn(20, 10)
    with torch.no_grad():
        data_parallel(Checking(), x, TWO)
    with torch.inference_mode():
        assert data_parallel(Checking(), x, TWO).is_inference()
    with pytest.raises(AssertionError):
        data_parallel(Checking(), x, TWO)


@pytest.mark.parametrize("names", [("cpu", "cpu"), [torch.device("cpu")] * 2, ["cpu", -1], 2])
def test_devices_and_the_output_device_by_any_name(names: Any) -> None:
    module, x = nn.Linear(10, 5), torch.randn(20, 10, requires_grad=True)
    for output in ("cpu", -1, torch.device("cpu"), None):
        torch.testing.assert_close(data_parallel(module, x, names, output), module(x))


@pytest.mark.skipif(not TWO_GPUS, reason="needs two GPUs")
@pytest.mark.parametrize("ids", [(0, 1), (1, 0)])
def test_two_gpus_compute_what_one_computes(ids: tuple[int, int]) -> None:
    module, x = nn.Linear(10, 5).cuda(ids[0]), torch.randn(20, 10, device="cuda:1")
    expected = module(x.cuda(ids[0]))
    expected.sum().backward()
    gradients = [each.grad.clone() for each in module.parameters() if each.grad is not None]
    module.zero_grad()
    found = data_parallel(module, x, list(ids))
    found.sum().backward()
    assert found.get_device() == ids[0]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close([each.grad for each in module.parameters()], gradients)


@pytest.mark.skipif(not TWO_GPUS, reason="needs two GPUs")
def test_a_loss_with_weights_on_two_gpus() -> None:
    criterion = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0])).cuda()
    parallel = DataParallel(nn.Linear(4, 3).cuda(), [0, 1], loss=criterion)
    x, y = torch.randn(5, 4, device="cuda"), torch.tensor([0, 1, 2, 0, 1], device="cuda")
    torch.testing.assert_close(parallel(x, y), criterion(parallel.module(x), y))
    parallel.close()
