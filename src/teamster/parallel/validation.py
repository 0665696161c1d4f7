# SPDX-License-Identifier: BSD-3-Clause
"""What is said of a module that cannot be replicated, before anything has run."""

from __future__ import annotations

import types

import torch
from torch import nn

from teamster.errors import UsageError


def check_replicable(module: nn.Module) -> None:
    """Refuse a module that cannot be copied without harm.

    Args:
        module: the user's.

    Raises:
        UsageError: it is compiled as a whole, or has Python modules below a ScriptModule, or
            parameters without a shape yet.

    Example:
        >>> check_replicable(nn.Linear(2, 2))
    """
    for name, each in module.named_modules():
        if isinstance(each, torch._dynamo.OptimizedModule):
            what = f"the submodule {name!r}" if name else "the module"
            raise UsageError(
                f"{what} is wrapped in torch.compile, whose copies would empty it: give the module "
                "as it was before"
            )
        own = each.__dict__.get("forward")
        if isinstance(own, types.FunctionType):
            what = f"forward of {name!r}" if name else "forward of the module"
            raise UsageError(
                f"{what} is a function of its own, which would run the original module: subclass "
                "it instead"
            )
        scripted = isinstance(each, torch.jit.ScriptModule)
        if scripted and any(
            not isinstance(child, torch.jit.ScriptModule) for child in each.modules()
        ):
            raise UsageError(
                "a module with Python modules below a ScriptModule cannot be replicated"
            )
    lazy = [
        name
        for name, each in module.named_parameters()
        if isinstance(each, nn.parameter.UninitializedParameter)
    ]
    if lazy:
        raise UsageError(
            f"the parameter {lazy[0]!r} has no shape yet: run the module on one batch before it is "
            "replicated"
        )


def check_placement(module: nn.Module, device: torch.device) -> None:
    """Refuse a module that is not on the first device as a whole.

    Args:
        module: the user's.
        device: the first one.

    Raises:
        UsageError: it names what is elsewhere.

    Example:
        >>> check_placement(nn.Linear(2, 2), torch.device("cpu"))
    """
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.device != device:
            raise UsageError(
                f"{name!r} is on device {tensor.device}, and all of the module must be on "
                f"device_ids[0], {device}"
            )
