# SPDX-License-Identifier: BSD-3-Clause
"""Step 4: put the outputs of the devices together, on one of them."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence

from teamster.errors import UsageError
from teamster.tensors.devices import DeviceLike, as_device
from teamster.tensors.nest import is_array, is_dataclass_instance, parts_of, remake, tensors_of

_PLAIN = (int, float, complex, bool, str, bytes)
_warned = False


def gather(outputs: Sequence[Any], target_device: DeviceLike, dim: int = 0) -> Any:
    """One output of those of several devices: tensors are concatenated, containers are gone into.

    Args:
        outputs: one a device, of the same structure.
        target_device: where the result is to be.
        dim: along which tensors are concatenated.

    Returns:
        The same structure. Tensors without dimensions become a vector with an entry for each
        device; None stays; numbers and strings stay where all devices say the same.

    Raises:
        UsageError: the structures differ, or hold what cannot be put together.

    Example:
        >>> gather([{"y": torch.ones(1)}, {"y": torch.zeros(2)}], "cpu")["y"].tolist()
        [1.0, 0.0, 0.0]
    """
    return _join(list(outputs), as_device(target_device), dim, "the output")


def _join(outputs: list[Any], device: torch.device, dim: int, where: str) -> Any:
    first = outputs[0]
    kinds = {type(output) for output in outputs}
    if len(kinds) > 1 and not all(isinstance(output, torch.Tensor) for output in outputs):
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise UsageError(f"{where} is not of one type on all devices: {names}")
    if isinstance(first, torch.Tensor):
        return _concatenate(outputs, device, dim, where)
    if isinstance(first, PackedSequence):
        raise UsageError(
            f"{where} is a PackedSequence, whose rows are not samples: unpack it inside of forward"
        )
    if first is None:
        return None
    if isinstance(first, _PLAIN):
        if any(output != first and not output != output != first != first for output in outputs):
            # NaN is not even itself
            told = ", ".join(repr(output) for output in outputs[:4])
            raise UsageError(
                f"{where} is of type {type(first).__name__} and not the same on all devices "
                f"({told}); return a tensor"
            )
        return first
    if is_array(first):
        return sys.modules["numpy"].concatenate(outputs, dim)
    return _join_containers(outputs, device, dim, where)


def _join_containers(outputs: list[Any], device: torch.device, dim: int, where: str) -> Any:
    first = outputs[0]
    if isinstance(first, Mapping):
        for index, output in enumerate(outputs):
            if missing := set(first) ^ set(output):
                told = ", ".join(map(repr, sorted(missing, key=str)))
                raise UsageError(
                    f"{where} has other keys on device number {index} than on the first: {told}"
                )
        joined = [
            _join([output[key] for output in outputs], device, dim, f"{where}[{key!r}]")
            for key in first
        ]
        return remake(first, joined)
    parts = [parts_of(output) for output in outputs]
    if any(part is None for part in parts):
        raise UsageError(
            f"{where} is of type {type(first).__name__}, which cannot be gathered; return tensors "
            "in containers"
        )
    lengths = {len(part) for part in parts if part is not None}
    if len(lengths) > 1:
        raise UsageError(
            f"{where} has {' and '.join(map(str, sorted(lengths)))} elements on the devices"
        )
    label = "." if is_dataclass_instance(first) else ""
    groups = zip(*(part or [] for part in parts), strict=True)
    return remake(
        first,
        [_join(list(group), device, dim, f"{where}{label}[{n}]") for n, group in enumerate(groups)],
    )


def _concatenate(
    outputs: list[torch.Tensor], device: torch.device, dim: int, where: str
) -> torch.Tensor:
    moved = [output.to(device, non_blocking=device.type != "cpu") for output in outputs]
    if moved[0].ndim == 0:
        _warn_of_scalars()
        return torch.stack([output.reshape(()) for output in moved])
    shapes = [list(output.shape) for output in moved]
    others = {
        tuple(size for at, size in enumerate(shape) if at != dim % len(shape)) for shape in shapes
    }
    if len(others) > 1:
        told = " and ".join(str(tuple(shape)) for shape in shapes[:3])
        raise UsageError(f"{where} cannot be gathered along dimension {dim}: its shapes are {told}")
    return torch.cat(moved, dim)


def is_by_sample(output: Any, samples: int, dim: int) -> bool:
    """Whether replicas could put an output together: an entry for each sample, in all numbers.

    Args:
        output: of the plain module, or gathered.
        samples: in the batch.
        dim: along which they are counted.

    Returns:
        False for losses, hidden states whose samples lie along another dimension, and objects that
        cannot be looked into.

    Example:
        >>> is_by_sample({"y": torch.ones(4, 2)}, 4, 0), is_by_sample(torch.tensor(1.0), 4, 0)
        (True, False)
    """
    if isinstance(output, torch.Tensor):
        if output.is_nested:  # it has no shape
            return False
        return -output.ndim <= dim < output.ndim and bool(output.shape[dim] == samples)
    if output is None or isinstance(output, (str, bytes, bool)):
        return True
    parts = parts_of(output)
    return parts is not None and all(is_by_sample(part, samples, dim) for part in parts)


def _warn_of_scalars() -> None:
    """Once in a program: torch says it in every step."""
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            "the module returns a tensor without dimensions on each device, and gather makes a "
            "vector of them; take its mean, or let DataParallel(..., loss=criterion) or step() "
            "weigh the losses by their samples",
            stacklevel=4,
        )


class Comparing:
    """Whether replicas give what the plain module gives, as far as shapes tell.

    Keeps what that had and gave at last.

    Example:
        >>> comparing = Comparing()
        >>> comparing.keep(torch.ones(4, 2), torch.ones(4, 4))
        >>> comparing.agrees(torch.ones(4, 2), torch.ones(4, 2), 4, 0)
        False
        >>> comparing.agrees(torch.ones(6, 2), torch.ones(6, 6), 6, 0)
        True
    """

    def __init__(self) -> None:
        self._given: list[tuple[int, ...]] = []
        self._output: list[tuple[int, ...]] = []

    def keep(self, given: Any, output: Any) -> None:
        """The plain module has made `output` of `given`."""
        self._given, self._output = _shapes_of(given), _shapes_of(output)

    def agrees(self, given: Any, output: Any, samples: int, dim: int) -> bool:
        """Whether replicas may have made what the plain module would have made.

        Args:
            given: inputs.
            output: gathered.
            samples: in the batch.
            dim: along which they are counted.

        Returns:
            False where there is not an entry for each sample, or where other shapes came of inputs
            of the same shapes.
        """
        return is_by_sample(output, samples, dim) and (
            _shapes_of(given) != self._given or _shapes_of(output) == self._output
        )


def _shapes_of(value: Any) -> list[tuple[int, ...]]:
    return [tuple(each.shape) if not each.is_nested else () for each in tensors_of(value)]
