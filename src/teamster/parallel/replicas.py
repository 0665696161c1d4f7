# SPDX-License-Identifier: BSD-3-Clause
"""Step 2: the module once a device.

::

    copy_structure  modules, shared ones once, hooks and attributes by reference, tensors as told
    replicate       for accelerators and one call: tensors lead back to the module's parameters
    Replicas        on CPUs, step after step: leaves of their own over the same memory; built once

Replicas on one device share the memory of the parameters. Buffers of the first are the module's
own, so that what it writes in place (statistics of a BatchNorm) stays; the others write into
copies.
"""

from __future__ import annotations

import threading
import types
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from teamster.parallel.validation import check_replicable
from teamster.tensors.devices import DeviceLike, as_devices

Swap = Callable[[torch.Tensor], torch.Tensor]

_Places = tuple[list[tuple[nn.Module, str]], torch.Tensor]
"""Where a buffer stands in a copy, and the original."""

_BUCKET_BYTES = 10 << 20  # as torch broadcasts parameters


def copy_structure(module: nn.Module, parameter: Swap, buffer: Swap) -> nn.Module:
    """A copy of a module with other tensors.

    Args:
        module: what to copy; it is not changed.
        parameter: gives what stands for a parameter; asked once for a tied one.
        buffer: gives what stands for a buffer.

    Returns:
        The copy, whose plain attributes and hooks are the module's own.

    Example:
        >>> linear = nn.Linear(2, 2)
        >>> copied = copy_structure(linear, lambda tensor: tensor, lambda tensor: tensor)
        >>> copied.weight is linear.weight, copied is linear
        (True, False)
    """
    copying = _Copying(parameter, buffer)
    made = copying.copied(module)
    copying.rebind()
    return made


def loose_tensors(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Leaves that want gradients and that this one module has as plain attributes.

    Args:
        module: any.

    Returns:
        Their names and themselves.

    Example:
        >>> module = nn.Module()
        >>> module.scale, module.name = torch.ones(1, requires_grad=True), "a"
        >>> [name for name, _ in loose_tensors(module)]
        ['scale']
    """
    held = module.__dict__.items()
    return [
        (name, each)
        for name, each in held
        if isinstance(each, torch.Tensor) and each.requires_grad and each.is_leaf
    ]


class _Copying:
    """One copy on its way.

    Functions inside of each other would be a circle, which holds the copies until it is collected.
    """

    def __init__(self, parameter: Swap, buffer: Swap) -> None:
        self._parameter = parameter
        self._buffer = buffer
        self._modules: dict[int, nn.Module] = {}
        self._tensors: dict[int, torch.Tensor] = {}

    def copied(self, each: nn.Module) -> nn.Module:
        """The copy of a module; a shared one is copied once."""
        if id(each) in self._modules:
            return self._modules[id(each)]
        made = self._modules[id(each)] = each._replicate_for_data_parallel()
        for name, child in each._modules.items():
            made._modules[name] = None if child is None else self.copied(child)
        for name, tensor in each._parameters.items():
            made._parameters[name] = self._swapped(tensor, self._parameter)
        for name, tensor in each._buffers.items():
            made._buffers[name] = self._swapped(tensor, self._buffer)
        if isinstance(each, nn.RNNBase):
            # It keeps a list of its weights, which its __setattr__ would have changed
            made._flat_weights = [getattr(made, name, None) for name in each._flat_weights_names]
        for name, tensor in loose_tensors(each):
            made.__dict__[name] = self._swapped(tensor, self._parameter)
        made.__dict__.pop("_compiled_call_impl", None)  # it would run the original
        return made

    def rebind(self) -> None:
        """Let what the copies have instead of methods of their class work on the copies."""
        for made in self._modules.values():
            for name, value in made.__dict__.items():
                if isinstance(value, (types.MethodType, partial)):
                    made.__dict__[name] = self._rebound(value)

    def _rebound(self, value: Any) -> Any:
        if isinstance(value, types.MethodType) and id(value.__self__) in self._modules:
            return types.MethodType(value.__func__, self._modules[id(value.__self__)])
        if isinstance(value, partial):
            arguments = [self._modules.get(id(each), each) for each in value.args]
            keywords = {
                name: self._modules.get(id(each), each) for name, each in value.keywords.items()
            }
            rebound = partial(self._rebound(value.func), *arguments, **keywords)
            rebound.__dict__.update(value.__dict__)
            return rebound
        return value

    def _swapped(self, tensor: torch.Tensor | None, swap: Swap) -> torch.Tensor | None:
        if tensor is None:
            return None
        if id(tensor) not in self._tensors:
            self._tensors[id(tensor)] = swap(tensor)
        return self._tensors[id(tensor)]


class _State:
    """What a copied module holds, to be put back when a forward pass has set something on it."""

    __slots__ = ("_dicts",)

    def __init__(self, module: nn.Module) -> None:
        held = (module.__dict__, module._parameters, module._buffers, module._modules)
        self._dicts = [(each, dict(each), list(map(id, each.values()))) for each in held]

    def restore(self) -> None:
        """Put back what is not there any more, and take away what is new."""
        for now, before, ids in self._dicts:
            if list(map(id, now.values())) != ids:
                now.clear()
                now.update(before)


def replicate(
    network: nn.Module, devices: Sequence[DeviceLike] | int, detach: bool = False
) -> list[nn.Module]:
    """Copy a module to devices; gradients of the copies lead back to its own parameters.

    Args:
        network: what to copy; on the first device.
        devices: names of devices; a number n for n accelerators, or n replicas on the CPU.
        detach: whether gradients lead nowhere.

    Returns:
        A module for each device. On one device parameters are shared, to others they go in buckets
        of 10 MiB.

    Raises:
        UsageError: the module cannot be replicated, or a device does not exist.

    Example:
        >>> first, second = replicate(nn.Linear(2, 2), ["cpu", "cpu"])
        >>> first.weight.data_ptr() == second.weight.data_ptr()
        True
    """
    check_replicable(network)
    found = as_devices(devices)
    loose = {id(each): each for module in network.modules() for _, each in loose_tensors(module)}
    parameters = list({**{id(each): each for each in network.parameters()}, **loose}.values())
    buffers = list(network.buffers())
    replicas = []
    for index, device in enumerate(found):
        moved = _broadcast(parameters, device, detach)
        moved |= _copy_buffers(buffers, device, detach, first=index == 0)
        replicas.append(copy_structure(network, partial(_look_up, moved), partial(_look_up, moved)))
    return replicas


def _look_up(moved: dict[int, torch.Tensor], tensor: torch.Tensor) -> torch.Tensor:
    return moved[id(tensor)]


def _broadcast(
    tensors: list[torch.Tensor], device: torch.device, detach: bool
) -> dict[int, torch.Tensor]:
    """Tensors on another device, by the identity of the original, in few large copies."""
    sources = [each.detach() if detach else each for each in tensors]
    if all(each.device == device for each in tensors):
        views = [each if detach else each.view_as(each) for each in sources]
        return {id(each): view for each, view in zip(tensors, views, strict=True)}
    made: dict[int, torch.Tensor] = {}
    for bucket in buckets_of(tensors):
        flat = torch.cat([sources[index].reshape(-1) for index in bucket]).to(
            device, non_blocking=True
        )
        chunks = flat.split([tensors[index].numel() for index in bucket])
        for index, chunk in zip(bucket, chunks, strict=True):
            made[id(tensors[index])] = chunk.view(tensors[index].shape)
    return made


def _copy_buffers(
    buffers: list[torch.Tensor], device: torch.device, detach: bool, *, first: bool
) -> dict[int, torch.Tensor]:
    made = {}
    for each in buffers:
        if each.requires_grad and not detach:
            made[id(each)] = each.to(device) if each.device != device else each.view_as(each)
        else:
            made[id(each)] = (
                each if first and each.device == device else each.detach().to(device, copy=True)
            )
    return made


def buckets_of(tensors: Sequence[torch.Tensor], most_bytes: int = _BUCKET_BYTES) -> list[list[int]]:
    """Groups of tensors that travel together.

    Args:
        tensors: in the order in which they are needed.
        most_bytes: of a group with more than one.

    Returns:
        Their indices, group by group; each is of one dtype and device.

    Example:
        >>> buckets_of([torch.zeros(4), torch.zeros(4), torch.zeros(4, dtype=torch.int)], 32)
        [[0, 1], [2]]
    """
    groups: list[list[int]] = []
    latest: dict[Any, tuple[list[int], int]] = {}
    for index, each in enumerate(tensors):
        key = each.dtype, each.device, each.requires_grad
        group, filled = latest.get(key, ([], most_bytes + 1))
        if filled + each.nbytes > most_bytes:
            group, filled = [], 0
            groups.append(group)
        group.append(index)
        latest[key] = group, filled + each.nbytes
    return groups


class Replicas:
    """Copies of a module on one CPU, kept from step to step, built again when it has changed.

    Each copy has leaves of its own over the memory of the module's parameters, so that each can run
    its own backward pass.

    Args:
        module: the user's.
        count: how many copies; more are made when they are needed.

    Example:
        >>> linear = nn.Linear(2, 2)
        >>> replicas = Replicas(linear, 2)
        >>> first, second = replicas.fresh()
        >>> first.weight is second.weight, first.weight.data_ptr() == linear.weight.data_ptr()
        (False, True)
    """

    def __init__(self, module: nn.Module, count: int) -> None:
        self._module = module
        self._count = count
        self._signature: Any = None
        self._made: list[nn.Module] = []
        self._states: list[list[_State]] = []
        self.sources: list[torch.Tensor] = []
        """Parameters of the module, and buffers that want gradients; each once."""
        self.leaves: list[list[torch.Tensor]] = []
        """What stands for them in each copy."""
        self._buffers: list[list[_Places]] = []
        self.built = 0
        self.turn = threading.RLock()
        """Held by a backward pass: several callers would write to the same leaves."""
        self._used = 0

    def fresh(self, count: int | None = None) -> list[nn.Module]:
        """The copies, as if they were new.

        Args:
            count: how many of them are needed; None for all.

        Returns:
            Modules; what an earlier step has set on them is gone.
        """
        count = count or self._count
        signature = _signature(self._module)
        if signature != self._signature or count > self._count:
            self._count = max(count, self._count)
            self._build()
            self._signature = signature
        else:
            self.tidy()
        self._used = count
        # New ones in each step, not written over: the graph of a step before may have saved them
        for places in self._buffers[:count]:
            for holders, original in places:
                copied = original.detach().clone()
                for holder, name in holders:
                    holder._buffers[name] = copied
        return self._made[:count]

    def tidy(self) -> None:
        """Take away what a forward pass has set on the copies: it may hold a graph."""
        for state in self._states[: self._used]:
            for each in state:
                each.restore()
        self._used = 0

    def _build(self) -> None:
        check_replicable(self._module)
        if any(
            each.__dict__.get("_compiled_call_impl") is not None for each in self._module.modules()
        ):
            warnings.warn(
                "a module was compiled in place, by its compile(): its replicas run without that",
                stacklevel=6,
            )
        self.built += 1
        self.sources, self.leaves, self._buffers = [], [[] for _ in range(self._count)], []
        known: dict[int, int] = {}

        def leaf(index: int) -> Swap:
            def make(tensor: torch.Tensor) -> torch.Tensor:
                made = tensor.detach().requires_grad_(tensor.requires_grad)
                if isinstance(tensor, nn.Parameter):
                    made = nn.Parameter(made, requires_grad=tensor.requires_grad)
                if tensor.requires_grad:
                    if id(tensor) not in known:
                        known[id(tensor)] = len(self.sources)
                        self.sources.append(tensor)
                    self.leaves[index].append(made)
                return made

            return make

        def buffer(index: int) -> Swap:
            return lambda tensor: leaf(index)(tensor) if tensor.requires_grad else tensor

        with torch.inference_mode(False), torch.enable_grad():
            self._made = [
                copy_structure(self._module, leaf(index), buffer(index))
                for index in range(self._count)
            ]
        self._buffers = [
            _places_of_buffers(made) if index else [] for index, made in enumerate(self._made)
        ]
        self._states = [[_State(each) for each in made.modules()] for made in self._made]


def _places_of_buffers(module: nn.Module) -> list[_Places]:
    """Where each buffer stands in a copy, in which it is still the original's."""
    places: dict[int, _Places] = {}
    for each in module.modules():
        for name, tensor in each._buffers.items():
            if tensor is not None and not tensor.requires_grad:
                places.setdefault(id(tensor), ([], tensor))[0].append((each, name))
    return list(places.values())


def _signature(module: nn.Module) -> list[Any]:
    """What a copy was made of; anything else now means that it is no copy any more."""
    found: list[Any] = []
    for each in module.modules():
        found += id(each), type(each)
        found += map(id, each.__dict__.values())
        held = [value for value in each.__dict__.values() if isinstance(value, torch.Tensor)]
        for tensor in (*each._parameters.values(), *each._buffers.values(), *held):
            if tensor is not None:
                found += (
                    id(tensor),
                    tensor.data_ptr(),
                    tensor.requires_grad,
                    tensor.dtype,
                    tensor.shape,
                )
                found += tensor.stride(), tensor.storage_offset()
        found += map(id, each._modules.values())
    return found
