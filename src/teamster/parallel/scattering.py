# SPDX-License-Identifier: BSD-3-Clause
"""Step 1: slice the batch, one chunk a device.

::

    (x, {"mask": m}, "name")  -->  (x[:5], {"mask": m[:5]}, "name")      device 0
                                   (x[5:], {"mask": m[5:]}, "name")      device 1

Sizes differ by at most one, or follow weights. Tensors and NumPy arrays are sliced; tensors without
dimensions, those that `shared` has marked, and all else go to every device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence

from teamster.errors import UsageError
from teamster.parallel.whole import is_shared
from teamster.tensors.devices import DeviceLike, as_devices
from teamster.tensors.nest import is_array, parts_of, remake


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one device gets of a call.

    Attributes:
        inputs: positional arguments.
        kwargs: keyword arguments.
        size: samples.
        device: where.
        index: which of the devices, of those that were named.
    """

    inputs: tuple[Any, ...]
    kwargs: dict[str, Any]
    size: int
    device: torch.device
    index: int = 0


def as_chunks(scattered: tuple[Any, Any], devices: Sequence[torch.device], dim: int) -> list[Chunk]:
    """What a method `scatter` has made, as chunks.

    Args:
        scattered: positional and keyword arguments of each device.
        devices: of which the first ones have something.
        dim: along which samples are counted.

    Returns:
        At least one.

    Raises:
        UsageError: there are more than devices, or not as many keyword arguments.

    Example:
        >>> inputs = [(torch.ones(2),), (torch.ones(1),)]
        >>> [chunk.size for chunk in as_chunks((inputs, [{}, {}]), as_devices(2), 0)]
        [2, 1]
    """
    inputs, kwargs = scattered
    # Nothing at all runs once, on the first device
    given: list[Any] = list(inputs) or [()] * max(1, len(kwargs or ()))
    named = list(kwargs or ()) or [{} for _ in given]
    if len(given) > len(devices) or len(named) != len(given):
        told = (
            f"{len(given)} chunks of positional and {len(named)} of keyword arguments for "
            f"{len(devices)} devices"
        )
        raise UsageError(
            f"scatter has made {told}; there must be one each, and no more than devices"
        )
    given = [tuple(each) if isinstance(each, (tuple, list)) else (each,) for each in given]
    rows = zip(given, named, devices, range(len(given)), strict=False)
    return [
        Chunk(each, own, batch_size_or_none((each, own), dim) or 1, device, index)
        for each, own, device, index in rows
    ]


def chunk_sizes(count: int, parts: int, weights: Sequence[float] | None = None) -> list[int]:
    """How many of `count` samples each of `parts` devices gets.

    Args:
        count: samples in the batch.
        parts: devices.
        weights: their speeds, in any unit; None for equal ones.

    Returns:
        Sizes that sum to `count`: equal but for one, or in proportion to the weights (largest
        remainders first, Hamilton 1792).

    Raises:
        UsageError: there are not as many weights as devices, or one is negative, or all are 0.

    Example:
        >>> chunk_sizes(10, 8), chunk_sizes(8, 2, [3, 1])
        ([2, 2, 1, 1, 1, 1, 1, 1], [6, 2])
    """
    if weights is None:
        return [count // parts + (index < count % parts) for index in range(parts)]
    if (
        len(weights) != parts
        or not all(0 <= weight < math.inf for weight in weights)
        or not sum(weights) > 0
    ):
        raise UsageError(
            f"weights must be {parts} numbers of 0 or more, not all 0, one for each device; not "
            f"{list(weights)}"
        )
    exact = [count * weight / sum(weights) for weight in weights]
    sizes = [int(share) for share in exact]
    for index in sorted(range(parts), key=lambda index: sizes[index] - exact[index])[
        : count - sum(sizes)
    ]:
        sizes[index] += 1
    return sizes


def batch_size(inputs: Any, dim: int) -> int | None:
    """How many samples `inputs` hold.

    Args:
        inputs: tensors and arrays in containers.
        dim: along which samples are counted.

    Returns:
        Their number; None when nothing can be sliced.

    Raises:
        UsageError: sizes differ, or a tensor has no such dimension, or a packed sequence is among
            them.

    Example:
        >>> batch_size([torch.ones(4, 2), {"y": torch.ones(4)}], 0)
        4
    """
    shapes = [tuple(each.shape) for each in _sliceable(inputs)]
    if bad := next((shape for shape in shapes if not -len(shape) <= dim < len(shape)), None):
        raise UsageError(
            f"an input of shape {bad} has no dimension {dim} to be scattered along; one that every "
            "replica needs whole goes in as teamster.parallel.shared(it)"
        )
    sizes = {shape[dim]: shape for shape in shapes}
    if len(sizes) > 1:
        told = " and ".join(f"{size} in shape {shape}" for size, shape in list(sizes.items())[:3])
        raise UsageError(
            f"inputs cannot be scattered along dimension {dim}: their sizes differ, {told}; one "
            "that every replica needs whole goes in as teamster.parallel.shared(it)"
        )
    return next(iter(sizes), None)


def batch_size_or_none(inputs: Any, dim: int) -> int | None:
    """The same; None for what cannot be scattered, too.

    Args:
        inputs: as of `batch_size`.
        dim: along which samples are counted.

    Returns:
        Their number, if there is one.

    Example:
        >>> batch_size_or_none([torch.ones(4, 2), torch.ones(3)], 0)
    """
    try:
        return batch_size(inputs, dim)
    except UsageError:
        return None


def _sliceable(value: Any) -> list[Any]:
    """Tensors and arrays with at least one dimension; none that go whole to every device."""
    if isinstance(value, PackedSequence):
        raise UsageError(
            "a PackedSequence cannot be scattered: its rows are not samples; pad the batch and "
            "pack in forward"
        )
    if isinstance(value, torch.Tensor) or is_array(value):
        if is_shared(value) or not value.ndim:
            return []
        if isinstance(value, torch.Tensor) and (value.is_nested or value.layout != torch.strided):
            raise UsageError(
                "a nested or sparse tensor cannot be scattered: pad it, make it dense, or give all "
                "of it to every replica as teamster.parallel.shared(it)"
            )
        return [value]
    return [found for part in parts_of(value) or () for found in _sliceable(part)]


def slices(
    value: Any, sizes: Sequence[int], devices: Sequence[torch.device], dim: int
) -> list[Any]:
    """A copy of `value` for each device, holding its slices.

    Args:
        value: tensors and arrays in containers, of `sum(sizes)` samples.
        sizes: of the slices, one a device.
        devices: where they go.
        dim: along which.

    Returns:
        As many as there are devices; a single one gets all of it.

    Example:
        >>> chunks = slices({"x": torch.arange(3)}, [2, 1], as_devices(2), 0)
        >>> [chunk["x"].tolist() for chunk in chunks]
        [[0, 1], [2]]
    """
    if len(devices) == 1:
        return [value if devices[0].type == "cpu" else _moved(value, devices[0])]
    if isinstance(value, torch.Tensor):
        whole = not value.ndim or is_shared(value)
        chunks = [value] * len(sizes) if whole else value.split(list(sizes), dim)
        if (
            not whole
            and devices[0].type == "cpu"
            and not value.requires_grad
            and not value.is_inference()
        ):
            # One may write into its slice without being in the others' way
            chunks = [chunk.data for chunk in chunks]
        return [
            chunk.to(device, non_blocking=device.type != "cpu")
            for chunk, device in zip(chunks, devices, strict=True)
        ]
    if is_array(value):
        if not value.ndim or is_shared(value):
            return [value] * len(sizes)
        ends = [sum(sizes[: index + 1]) for index in range(len(sizes))]
        moved = value.swapaxes(0, dim)
        return [
            moved[end - size : end].swapaxes(0, dim) for size, end in zip(sizes, ends, strict=True)
        ]
    parts = parts_of(value)
    if not parts:
        return [value] * len(sizes)
    by_part = [slices(part, sizes, devices, dim) for part in parts]
    return [remake(value, list(of_device)) for of_device in zip(*by_part, strict=True)]


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, (torch.Tensor, PackedSequence)):  # a part of the latter stays on the CPU
        return value.to(device, non_blocking=True)
    parts = parts_of(value)
    return remake(value, [_moved(part, device) for part in parts]) if parts else value


def scatter(
    inputs: Any,
    target_gpus: Sequence[DeviceLike] | int,
    dim: int = 0,
    weights: Sequence[float] | None = None,
) -> Any:
    """Slice tensors inside of containers into near-equal chunks, one a device.

    Args:
        inputs: tensors and NumPy arrays in tuples, lists, dicts, named tuples and dataclasses;
            other objects go to every device.
        target_gpus: names of devices; a number n for n accelerators, or n replicas on the CPU.
        dim: along which samples are counted.
        weights: for unequal devices: their speeds, in any unit.

    Returns:
        A list with a copy for each device, a tuple for a single tensor; as many as there are
        samples where those are fewer than devices.

    Raises:
        UsageError: sizes along `dim` differ, or a device does not exist.

    Example:
        >>> [chunk.tolist() for chunk in scatter(torch.arange(5), ["cpu", "cpu"])]
        [[0, 1, 2], [3, 4]]
    """
    devices = as_devices(target_gpus)
    count = batch_size(inputs, dim)
    sizes = [1] * len(devices) if count is None else chunk_sizes(count, len(devices), weights)
    if count is not None:
        used = max([1, *(index + 1 for index, size in enumerate(sizes) if size)])
        sizes, devices = sizes[:used], devices[:used]
    found = slices(inputs, sizes, devices, dim)
    return tuple(found) if isinstance(inputs, torch.Tensor) else found


def scatter_kwargs(
    inputs: tuple[Any, ...],
    kwargs: dict[str, Any] | None,
    target_gpus: Sequence[DeviceLike] | int,
    dim: int = 0,
    weights: Sequence[float] | None = None,
) -> tuple[tuple[tuple[Any, ...], ...], tuple[dict[str, Any], ...]]:
    """Scatter the arguments of a call; both results have the same length.

    Args:
        inputs: positional arguments.
        kwargs: keyword arguments.
        target_gpus: as in `scatter`.
        dim: as in `scatter`.
        weights: as in `scatter`.

    Returns:
        Positional and keyword arguments of each device.

    Raises:
        UsageError: sizes along `dim` differ, between the two as well.

    Example:
        >>> scatter_kwargs((torch.ones(2),), None, ["cpu", "cpu"])[1]
        ({}, {})
    """
    both = scatter((tuple(inputs), dict(kwargs or {})), target_gpus, dim, weights)
    return tuple(each[0] for each in both), tuple(each[1] for each in both)
