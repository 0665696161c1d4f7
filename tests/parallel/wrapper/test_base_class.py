# SPDX-License-Identifier: BSD-3-Clause
"""A drop-in is its base class, too.

What nn.Module and torch's DataParallel offer is tried on both, side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from teamster.parallel import DataParallel


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.Tanh())
        self.head = nn.Linear(8, 3)
        self.register_buffer("scale", torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x.to(self.head.weight.dtype))) * self.scale

    def set_extra_state(self, state: Any) -> None:
        self.label = state

    def get_extra_state(self) -> Any:
        return getattr(self, "label", "none")


def load(model: nn.Module) -> Any:
    state = {
        name: each * 2 if isinstance(each, torch.Tensor) else each
        for name, each in model.state_dict().items()
    }
    return model.load_state_dict(state)


def replace_head(model: nn.Module, name: str) -> None:
    getattr(model, name)("module", Net().to(torch.float32))


def hooked(name: str, *hook: Any) -> Callable[[nn.Module], Any]:
    """Registers a hook on the wrapper, and tells how often it was called."""

    def register(model: nn.Module) -> list[int]:
        seen: list[int] = []
        getattr(model, name)(lambda *given: seen.append(len(given)), *hook)
        model(torch.ones(5, 6, requires_grad=True)).sum().backward()
        model.load_state_dict(model.state_dict())
        return seen

    return register


NO_SUCH_DEVICE = RuntimeError, AssertionError, NotImplementedError

# What is called, by the member's name: with arguments as one would give them.
MEMBERS: dict[str, Callable[[Any], Any]] = {
    "T_destination": lambda model: model.T_destination,
    "add_module": lambda model: replace_head(model, "add_module"),
    "apply": lambda model: (
        model.apply(
            lambda each: isinstance(each, nn.Linear) and nn.init.constant_(each.weight, 0.5)
        )
        is model
    ),
    "bfloat16": lambda model: model.bfloat16() is model,
    "buffers": lambda model: list(model.buffers()),
    "call_super_init": lambda model: model.call_super_init,
    "children": lambda model: [type(each) for each in model.children()],
    "compile": lambda model: model.compile(backend="eager"),
    "cpu": lambda model: model.cpu() is model,
    "cuda": lambda model: model.cuda(),
    "double": lambda model: model.double() is model,
    "dump_patches": lambda model: model.dump_patches,
    "eval": lambda model: (model.eval() is model, model.module.training),
    "extra_repr": lambda model: model.extra_repr(),
    "float": lambda model: model.float() is model,
    "forward": lambda model: model.forward(torch.ones(5, 6)),
    "gather": lambda model: model.gather([torch.ones(2), torch.zeros(1)], "cpu"),
    "get_buffer": lambda model: model.get_buffer("module.scale"),
    "get_extra_state": lambda model: model.module.get_extra_state(),
    "get_parameter": lambda model: model.get_parameter("module.head.weight"),
    "get_submodule": lambda model: type(model.get_submodule("module.body.0")),
    "half": lambda model: model.half() is model,
    "ipu": lambda model: model.ipu(),
    "load_state_dict": load,
    "module": lambda model: type(model.module),
    "modules": lambda model: [type(each) for each in model.modules()][1:],
    "mtia": lambda model: model.mtia(),
    "named_buffers": lambda model: list(model.named_buffers()),
    "named_children": lambda model: [name for name, _ in model.named_children()],
    "named_modules": lambda model: [name for name, _ in model.named_modules()],
    "named_parameters": lambda model: list(model.named_parameters()),
    "parallel_apply": lambda model: model.parallel_apply(
        [model.module], [(torch.ones(5, 6),)], [{}]
    ),
    "parameters": lambda model: list(model.parameters()),
    "register_backward_hook": hooked("register_backward_hook"),
    "register_buffer": lambda model: model.register_buffer("mean", torch.zeros(2)),
    "register_forward_hook": hooked("register_forward_hook"),
    "register_forward_pre_hook": hooked("register_forward_pre_hook"),
    "register_full_backward_hook": hooked("register_full_backward_hook"),
    "register_full_backward_pre_hook": hooked("register_full_backward_pre_hook"),
    "register_load_state_dict_post_hook": hooked("register_load_state_dict_post_hook"),
    "register_load_state_dict_pre_hook": hooked("register_load_state_dict_pre_hook"),
    "register_module": lambda model: replace_head(model, "register_module"),
    "register_parameter": lambda model: model.register_parameter(
        "gain", nn.Parameter(torch.ones(1))
    ),
    "register_state_dict_post_hook": hooked("register_state_dict_post_hook"),
    "register_state_dict_pre_hook": hooked("register_state_dict_pre_hook"),
    "replicate": lambda model: [
        len(list(each.modules())) for each in model.replicate(model.module, ["cpu"])
    ],
    "requires_grad_": lambda model: model.requires_grad_(False) is model,
    "scatter": lambda model: model.scatter((torch.ones(5, 6),), {}, ["cpu"]),
    "set_extra_state": lambda model: model.module.set_extra_state("mine"),
    "set_submodule": lambda model: model.set_submodule(
        "module.head", nn.Linear(8, 2).to(torch.float32)
    ),
    "share_memory": lambda model: (
        model.share_memory() is model and model.module.head.weight.is_shared()
    ),
    "state_dict": lambda model: model.state_dict(),
    "to": lambda model: model.to("cpu", torch.float64) is model,
    "to_empty": lambda model: model.to_empty(device="cpu").apply(reset).zero_grad(),
    "train": lambda model: (model.train() is model, model.module.training),
    "training": lambda model: model.training,
    "type": lambda model: model.type(torch.float64) is model,
    "xpu": lambda model: model.xpu(),
    "zero_grad": lambda model: model.zero_grad(),
}
# torch's is without devices here, and these of its methods need some: what ours are to give, from
# its module.
NEED_DEVICES: dict[str, Callable[[Any], Any]] = {
    "gather": lambda model: torch.tensor([1.0, 1.0, 0.0]),
    "parallel_apply": lambda model: [model.module(torch.ones(5, 6))],
    "replicate": lambda model: [len(list(model.module.modules()))],
    "scatter": lambda model: (((torch.ones(5, 6),),), ({},)),
}


def reset(module: nn.Module) -> None:
    for each in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
        nn.init.constant_(each, 0.25)


def fresh() -> nn.Module:
    torch.manual_seed(0)
    return Net().float()


def outcome(call: Callable[[Any], Any], model: nn.Module) -> Any:
    try:
        return call(model)
    except NO_SUCH_DEVICE as error:
        return type(error)


def of_public() -> list[str]:
    return [
        name
        for name in sorted({*dir(nn.Module), *dir(nn.DataParallel(nn.Identity()))})
        if not name.startswith("_")
    ]


def test_every_public_member_is_tried() -> None:
    assert set(of_public()) - {"device_ids"} == set(MEMBERS)
    assert [name for name in of_public() if not hasattr(DataParallel(nn.Identity(), 2), name)] == []


@pytest.mark.filterwarnings(
    "ignore:Using a non-full backward hook:FutureWarning", "ignore:a module was compiled"
)
@pytest.mark.parametrize("name", sorted(MEMBERS))
def test_it_does_what_torchs_does(name: str) -> None:
    for used in (False, True):
        check_member(name, used=used)


def check_member(name: str, *, used: bool) -> None:
    plain, parallel = nn.DataParallel(fresh()), DataParallel(fresh(), ["cpu", "cpu"])
    plain.dim, plain.output_device = 0, "cpu"
    if used:
        for model in (plain, parallel):
            model(torch.ones(4, 6)).sum().backward()
    torch.manual_seed(1)
    theirs = outcome(NEED_DEVICES.get(name, MEMBERS[name]), plain)
    torch.manual_seed(1)
    same(outcome(MEMBERS[name], parallel), theirs)
    x = torch.randn(5, 6, requires_grad=True)
    for model in (plain, parallel):
        output = model(x)
        if output.requires_grad:
            output.sum().backward()
    same(parallel(x), plain(x), loose=True)
    for (one, mine), (other, their) in zip(
        parallel.named_parameters(), plain.named_parameters(), strict=True
    ):
        assert (one, mine.dtype, mine.requires_grad) == (other, their.dtype, their.requires_grad)
        same(mine.grad, their.grad, loose=True)
    parallel.close()


def same(one: Any, other: Any, *, loose: bool = False) -> None:
    if isinstance(one, (tuple, list)):
        assert len(one) == len(other)
        for mine, their in zip(one, other, strict=True):
            same(mine, their, loose=loose)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        same(list(one.values()), list(other.values()), loose=loose)
    elif isinstance(one, torch.Tensor):
        tolerance = (
            {"rtol": 2e-2, "atol": 2e-2}
            if loose and one.dtype in (torch.half, torch.bfloat16)
            else {}
        )
        torch.testing.assert_close(one, other, **tolerance)
    else:
        assert one == other
