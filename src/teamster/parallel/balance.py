# SPDX-License-Identifier: BSD-3-Clause
"""A warning where one device is much smaller than another: the slowest decides how long a step takes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch

_ALIKE = 0.75  # of the largest: what torch's own warning takes for alike


def warn_of_imbalance(devices: Sequence[torch.device]) -> None:
    """Look at the GPUs' memory and cores.

    Args:
        devices: those that will be used; only CUDA's can be asked.

    Example:
        >>> warn_of_imbalance([torch.device("cpu")])
    """
    if devices[0].type != "cuda":
        return
    facts = [torch.cuda.get_device_properties(device) for device in devices]
    if told := describe_imbalance(devices, facts):
        warnings.warn(told, stacklevel=3)


def describe_imbalance(devices: Sequence[Any], facts: Sequence[Any]) -> str:
    """Say which device is too small beside which other.

    Args:
        devices: their names.
        facts: of each ``total_memory`` in bytes and ``multi_processor_count``.

    Returns:
        A sentence; empty when they are alike.

    Example:
        >>> from types import SimpleNamespace as Facts
        >>> describe_imbalance(["cuda:0", "cuda:1"], [Facts(total_memory=8, multi_processor_count=4)] * 2)
        ''
    """
    for what, attribute in (("memory", "total_memory"), ("cores", "multi_processor_count")):
        sizes = [getattr(each, attribute) for each in facts]
        least, most = sizes.index(min(sizes)), sizes.index(max(sizes))
        if sizes[least] < _ALIKE * sizes[most]:
            share = sizes[least] / sizes[most]
            return (
                f"device {devices[least]} has {share:.0%} of the {what} of device {devices[most]}, and each step waits for the"
                " slower; leave it out of device_ids, or give weights= (weights='measured' finds them)"
            )
    return ""
