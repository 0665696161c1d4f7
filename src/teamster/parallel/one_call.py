# SPDX-License-Identifier: BSD-3-Clause
"""`data_parallel`: all four steps for one call, as a function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from teamster.parallel.applying import shared_threads
from teamster.parallel.wrapper import DataParallel
from teamster.tensors.devices import DeviceLike, all_devices


def data_parallel(
    module: nn.Module,
    inputs: Any,
    device_ids: Sequence[DeviceLike] | int | None = None,
    output_device: DeviceLike | None = None,
    dim: int = 0,
    module_kwargs: dict[str, Any] | None = None,
) -> Any:
    """ModuleCall a module once on several devices.

    `DataParallel` keeps what it has built for the next call.

    Args:
        module: on the first device.
        inputs: a tuple of positional arguments, or a single one.
        device_ids: as of `DataParallel`.
        output_device: where outputs are gathered; None for the first device.
        dim: along which samples are counted.
        module_kwargs: keyword arguments.

    Returns:
        The module's output for the whole batch.

    Raises:
        UsageError: a device does not exist, or the module cannot be replicated.

    Example:
        >>> import torch
        >>> data_parallel(nn.Identity(), torch.arange(3), ["cpu", "cpu"]).tolist()
        [0, 1, 2]
    """
    parallel = DataParallel(
        module, device_ids if device_ids is not None else all_devices(), output_device, dim
    )
    devices = parallel.device_ids
    runtime = parallel._current()
    # Which are there for the next call, and for this one's backward
    runtime.threads[len(devices)] = shared_threads(devices)
    given = inputs if isinstance(inputs, tuple) else () if inputs is None else (inputs,)
    return parallel(*given, **(module_kwargs or {}))
