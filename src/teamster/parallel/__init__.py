# SPDX-License-Identifier: BSD-3-Clause
"""One model, several devices, one process: `DataParallel` and its four steps, a drop-in for torch.nn.parallel on any device.

::

    1  scattering    slices of the batch              2  replicas    the module on each device
    3  applying      all at once, persistent threads  4  gathering   outputs together on one device

    wrapper          DataParallel                     one_call    data_parallel
    runtime          what it has in one process       calling     one call on its way
    cpu              steps 2 and 3 on CPU replicas    whole       arguments that are not sliced
    autograd/        backward in parallel where autograd has one thread, checkpoints that draw, what autograd knows of tensors
    stepping         forward, loss and backward in one go                      criterion   a loss in slices
    thread_state     what of the caller's state the threads take over          threads     one a device, kept
    auto             how many CPU replicas pay                                 comparing   replicas that nobody named
    weighing         speeds of devices    balance     devices that differ      step_report what the phases took
    validation       modules that cannot be replicated
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from teamster.parallel.applying import parallel_apply
    from teamster.parallel.gathering import gather
    from teamster.parallel.one_call import data_parallel
    from teamster.parallel.replicas import replicate
    from teamster.parallel.scattering import scatter, scatter_kwargs
    from teamster.parallel.step_report import StepReport
    from teamster.parallel.whole import shared
    from teamster.parallel.wrapper import DataParallel

__all__ = [
    "DataParallel",
    "StepReport",
    "data_parallel",
    "gather",
    "parallel_apply",
    "replicate",
    "scatter",
    "scatter_kwargs",
    "shared",
]

_HOMES = {
    "DataParallel": "wrapper",
    "StepReport": "step_report",
    "data_parallel": "one_call",
    "gather": "gathering",
    "parallel_apply": "applying",
    "replicate": "replicas",
    "scatter": "scattering",
    "scatter_kwargs": "scattering",
    "shared": "whole",
}


def __getattr__(name: str) -> object:
    """Import the file that owns a public name on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value: object = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
