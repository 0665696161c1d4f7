# SPDX-License-Identifier: BSD-3-Clause
"""One model, several devices, one process: a drop-in for torch.nn.parallel on any device.

::

    1  scattering    slices of the batch         3  applying   all at once, threads that stay
    2  replicas      the module on each device   4  gathering  outputs together on one device

    wrapper          DataParallel, what a user holds      one_call   data_parallel
    passing          one pass through the four steps      calling    one call on its way
    cpu              steps 2 and 3, a graph a replica     whole      arguments not to be sliced
    accelerators     steps 2 and 3, one graph for all     criterion  a loss in slices
    runtime          what there is in one process         threads    one a device
    auto             how many CPU replicas pay            balance    devices that differ
    thread_state     the caller's state, taken over       step_report, validation
    autograd/        backward in parallel, gradients, checkpoints, graphs
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
