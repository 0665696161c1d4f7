# SPDX-License-Identifier: BSD-3-Clause
"""All that a training is, as tensors by name and the rest; and put back.

::

    model, optimizers, schedulers, scaler, gradients of an update that is not complete,
    random generators, position of the loader
        --take_apart--> {"model.0.weight": tensor, ...}, and the rest with names in their places
        <--put_together--

What is not a tensor is small, and pickles; tensors are what takes time, and are copied one by one.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch

from teamster.spine.workers.seeds import generator_states, restore_generators
from teamster.train.shards import whole_of

Tensors = dict[str, torch.Tensor]

_MARK = "tensor of this checkpoint"  # the key of a dict that stands for a tensor
_SPARSE = "sparse tensor of this checkpoint"  # the same, of its indices, values and shape


def take_apart(value: Any, tensors: Tensors, name: str = "") -> Any:
    """A copy of nested dicts, lists and tuples, with names for tensors.

    Args:
        value: the state.
        tensors: where they go, by name.
        name: of the value.

    Returns:
        The rest.

    Example:
        >>> tensors = {}
        >>> take_apart({"a": [torch.ones(2), 3]}, tensors)
        {'a': [{'tensor of this checkpoint': 'a.0'}, 3]}
        >>> list(tensors)
        ['a.0']
    """
    if isinstance(value, torch.Tensor):
        if value.layout is torch.sparse_coo:
            parts = value.coalesce()
            found = parts.indices(), parts.values(), tuple(value.shape)
            return {_SPARSE: take_apart(found, tensors, name)}
        tensors[name] = value
        return {_MARK: name}
    prefix = f"{name}." if name else ""
    if isinstance(value, dict):
        return {key: take_apart(each, tensors, f"{prefix}{key}") for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(
            take_apart(each, tensors, f"{prefix}{index}") for index, each in enumerate(value)
        )
    return value


def put_together(rest: Any, tensors: Tensors) -> Any:
    """What `take_apart` was given.

    Example:
        >>> put_together([{"tensor of this checkpoint": "0"}, 3], {"0": torch.ones(1)})
        [tensor([1.]), 3]
    """
    if isinstance(rest, dict):
        if list(rest) == [_MARK]:
            return tensors[rest[_MARK]]
        if list(rest) == [_SPARSE]:
            indices, values, shape = put_together(rest[_SPARSE], tensors)
            made = torch.sparse_coo_tensor(indices, values, shape, check_invariants=True)
            return made.coalesce()
        return {key: put_together(each, tensors) for key, each in rest.items()}
    if type(rest) in (list, tuple):
        return type(rest)(put_together(each, tensors) for each in rest)
    return rest


def give_parts(state: Any) -> None:
    """Have rank 0 put together what it copies: this rank gives its parts, in the same order.

    Args:
        state: as there.

    Example:
        >>> give_parts({"a": torch.ones(1)})
    """
    tensors: Tensors = {}
    take_apart(state, tensors)
    for each in tensors.values():
        whole_of(each)


def random_states() -> dict[str, Any]:
    """The generators of the program: Python's, NumPy's where it is loaded, torch's.

    Example:
        >>> states = random_states()
        >>> first = torch.rand(1)
        >>> restore_random(states)
        >>> bool(first == torch.rand(1))
        True
    """
    states = generator_states()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def restore_random(states: dict[str, Any]) -> None:
    """Put the generators back.

    Args:
        states: of `random_states`.

    Example:
        >>> restore_random(random_states())
    """
    if "numpy.random" in states:
        import_module("numpy")  # the program that has saved them had it
    restore_generators({name: each for name, each in states.items() if name != "cuda"})
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])


class HostCopies:
    """Tensors copied into memory of the host that is used again.

    Example:
        >>> copies, tensor = HostCopies(), torch.ones(2)
        >>> taken = copies.take({"a": tensor})
        >>> tensor.zero_()
        tensor([0., 0.])
        >>> taken["a"]
        tensor([1., 1.])
    """

    def __init__(self) -> None:
        self._buffers: Tensors = {}

    def take(self, tensors: Tensors) -> Tensors:
        """Copies, which are valid until the next call.

        Args:
            tensors: on any devices; of those of which each rank has a part, all have to give it.
        """
        kept = self._buffers
        self._buffers = {
            name: self._buffer(kept.get(name), tensor) for name, tensor in tensors.items()
        }
        devices = set()
        with torch.no_grad():
            for name, tensor in tensors.items():
                self._buffers[name].copy_(whole_of(tensor), non_blocking=True)
                devices.add(tensor.device)
        for device in devices:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        return self._buffers

    @staticmethod
    def _buffer(kept: torch.Tensor | None, tensor: torch.Tensor) -> torch.Tensor:
        if kept is not None and kept.shape == tensor.shape and kept.dtype == tensor.dtype:
            return kept
        pinned = tensor.device.type == "cuda"
        return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pinned)
