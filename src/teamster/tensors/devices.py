# SPDX-License-Identifier: BSD-3-Clause
"""Which devices a list of names means.

Names are numbers, strings, `torch.device`s, and CPU replicas that share one processor's memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch

from teamster.errors import UsageError
from teamster.machine.cpus import usable_cores

DeviceLike: TypeAlias = "int | str | torch.device"


def accelerator() -> str:
    """The kind of accelerator that this machine has.

    Returns:
        "cuda" and so on; "cpu" where there is none.

    Example:
        >>> accelerator() in ("cpu", "cuda", "mps", "xpu")
        True
    """
    if torch.cuda.is_available():
        return "cuda"
    found = torch.accelerator.current_accelerator() if hasattr(torch, "accelerator") else None
    return found.type if found is not None and torch.accelerator.is_available() else "cpu"


def as_device(device: DeviceLike) -> torch.device:
    """One device by its name.

    Args:
        device: a number counts the accelerators, -1 is the CPU; a string or a `torch.device` as
            torch has it.

    Returns:
        The device; of an accelerator with its number.

    Raises:
        UsageError: there is no such device on this machine.

    Example:
        >>> as_device("cpu")
        device(type='cpu')
    """
    kind = accelerator()
    if isinstance(device, bool) or not isinstance(device, (int, str, torch.device)):
        raise UsageError(
            f"a device is a number, a string or a torch.device, not {type(device).__name__} "
            f"{device!r:.60}"
        )
    if isinstance(device, int):
        if device == -1:
            return torch.device("cpu")
        if device < -1:
            raise UsageError(
                f"device {device} does not exist: numbers count accelerators from 0, and -1 is the "
                "CPU"
            )
        if kind == "cpu":
            raise UsageError(
                f"device {device} does not exist: this machine has no accelerator; name CPU "
                "replicas: ['cpu', 'cpu']"
            )
        found = torch.device(kind, device)
    else:
        try:
            found = torch.device(device)
        except RuntimeError as error:
            raise UsageError(
                f"there is no device {device!r}: {str(error).splitlines()[0]}"
            ) from None
    if found.type == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count() if found.type == "cuda" else int(found.type == kind)
    number = found.index if found.index is not None else 0
    if found.type not in (kind, "meta") or number >= count:
        raise UsageError(
            f"device {str(found)!r} does not exist: this machine has {count} of type {found.type!r}"
        )
    return torch.device(found.type, number)


def as_devices(devices: Sequence[DeviceLike] | int) -> list[torch.device]:
    """Devices by their names.

    Args:
        devices: names; a number n means the first n accelerators, or n replicas on the CPU where
            there is none.

    Returns:
        The devices, in order.

    Raises:
        UsageError: one does not exist, or there are none, or some are CPUs and some are not.

    Example:
        >>> as_devices(["cpu", "cpu"])
        [device(type='cpu'), device(type='cpu')]
    """
    if isinstance(devices, int):
        if devices < 1 or isinstance(devices, bool):
            raise UsageError(f"device_ids must name at least one device, not {devices}")
        cpu = accelerator() == "cpu"
        found = [torch.device("cpu") if cpu else as_device(number) for number in range(devices)]
    elif isinstance(devices, (str, torch.device)):
        raise UsageError(
            f"device_ids takes a list, as in [{str(devices)!r}], or the number of replicas"
        )
    else:
        found = [as_device(device) for device in devices]
    if not found:
        raise UsageError("device_ids must name at least one device")
    if len({device.type for device in found}) > 1:
        raise UsageError(
            f"device_ids are of several kinds: {', '.join(map(str, found))}; take accelerators, or "
            "CPU replicas"
        )
    if found[0].type != "cpu" and len(set(found)) < len(found):
        raise UsageError(f"device_ids name a device twice: {', '.join(map(str, found))}")
    return found


def all_devices() -> Sequence[DeviceLike] | int:
    """What there is: all accelerators, or a CPU replica for each usable core.

    Returns:
        As `as_devices` takes it.

    Example:
        >>> len(as_devices(all_devices())) >= 1
        True
    """
    kind = accelerator()
    if kind == "cpu":
        return usable_cores()
    return torch.cuda.device_count() if kind == "cuda" else [kind]
